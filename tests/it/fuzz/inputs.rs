//! Nearly valid inputs: a stored corpus, and random changes of the inputs in the corpus.

use std::path::Path;

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use tokio::{runtime::Handle, task::block_in_place};

/// Number of changed inputs per target, unless `FUZZ_CASES` sets another number.
const CASES: u32 = 200;

/// Inputs of a target, stored as a JSON list of texts. An input that once failed is added to
/// the list.
pub struct Corpus(Vec<String>);

impl Corpus {
    /// Reads the inputs of a target.
    pub fn load(target: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fuzz/corpus");
        let text = std::fs::read_to_string(folder.join(format!("{target}.json")));
        Self(serde_json::from_str(&text.expect("a corpus")).expect("a list of texts"))
    }

    /// Adds an input that only a running server can produce, such as a token.
    pub fn with_seed(mut self, seed: &str) -> Self {
        self.0.push(seed.to_owned());
        self
    }

    /// Tries all stored inputs, then changed inputs. Reduces a failing input to the smallest
    /// failing input, and prints that input.
    #[expect(clippy::needless_pass_by_value, reason = "it is called with a closure")]
    pub fn try_inputs_and_mutations(&self, try_one: impl AsyncFn(&str)) {
        block_in_place(|| {
            let try_one = |input: &str| Handle::current().block_on(try_one(input));
            self.0.iter().for_each(|input| try_one(input));
            let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
            let mut runner = TestRunner::new(ProptestConfig {
                cases: cases.unwrap_or(CASES),
                failure_persistence: None,
                max_shrink_iters: 500,
                ..ProptestConfig::default()
            });
            let result = runner.run(&self.inputs(), |input| {
                try_one(&input);
                Ok(())
            });
            result.expect("no input fails");
        });
    }

    fn inputs(&self) -> impl Strategy<Value = String> + use<> {
        let seeds = prop::sample::select(self.0.clone());
        let changes = prop::collection::vec((any_change(), any::<Index>()), 0..4);
        (seeds.clone(), seeds, changes).prop_map(|(seed, other, changes)| {
            let mut text: Vec<char> = seed.chars().collect();
            for (change, position) in changes {
                change.apply(&mut text, position, &other);
            }
            text.into_iter().collect()
        })
    }
}

#[derive(Clone, Debug)]
enum Change {
    Insert(char),
    Replace(char),
    Remove,
    /// Repeats the text after the position.
    Double,
    /// Replaces the text after the position with the same part of another input.
    Splice,
    /// Removes the text after the position.
    Cut,
}

fn any_change() -> impl Strategy<Value = Change> {
    let character = || prop_oneof![prop::char::range(' ', '~'), any::<char>()];
    prop_oneof![
        character().prop_map(Change::Insert),
        character().prop_map(Change::Replace),
        Just(Change::Remove),
        Just(Change::Double),
        Just(Change::Splice),
        Just(Change::Cut),
    ]
}

impl Change {
    fn apply(self, text: &mut Vec<char>, position: Index, other: &str) {
        let at = position.index(text.len() + 1);
        match self {
            Self::Insert(character) => text.insert(at, character),
            Self::Replace(character) if at < text.len() => text[at] = character,
            Self::Remove if at < text.len() => _ = text.remove(at),
            Self::Double => text.extend_from_within(at..),
            Self::Splice => {
                text.truncate(at);
                text.extend(other.chars().skip(at));
            }
            Self::Cut => text.truncate(at),
            Self::Replace(_) | Self::Remove => {}
        }
    }
}
