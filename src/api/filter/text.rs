//! Texts, compared as people read them.

use unicode_normalization::{UnicodeNormalization, char::canonical_combining_class};

/// What a text must be, in the form that is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Exactly this.
    Whole(String),
    /// This, and any ending.
    Start(String),
    /// This, anywhere in it.
    Part(String),
}

impl Pattern {
    /// The same, with its text in another form.
    pub(super) fn map(self, form: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Whole(text) => Self::Whole(form(&text)),
            Self::Start(text) => Self::Start(form(&text)),
            Self::Part(text) => Self::Part(form(&text)),
        }
    }

    /// Whether a text is like that, case and accents aside.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = folded(text);
        match self {
            Self::Whole(whole) => text == *whole,
            Self::Start(start) => text.starts_with(start),
            Self::Part(part) => text.contains(part),
        }
    }

    /// As SQL's LIKE has it.
    pub(super) fn like(&self) -> String {
        let (before, text, after) = match self {
            Self::Whole(text) => ("", text, ""),
            Self::Start(text) => ("", text, "%"),
            Self::Part(text) => ("%", text, "%"),
        };
        let text = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
        format!("{before}{text}{after}")
    }
}

/// The form that is compared: NFKD without accents, lower case, NFKC.
pub(super) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd().filter(|c| !is_accent(*c)).flat_map(char::to_lowercase).nfkc().collect()
}

/// Whether a mark is an accent or a vowel point, by its combining class: marks that make
/// another letter, such as the voicing of kana, are none.
fn is_accent(c: char) -> bool {
    matches!(canonical_combining_class(c), 1 | 10..=36 | 200..=240)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_width_do_not_matter() {
        for (one, other) in [
            ("Ada", "ADA"),
            ("José", "JOSE\u{301}"),
            ("Müller", "muller"),
            ("Ångström", "angstrom"),
            ("Ｔｏｋｙｏ", "tokyo"),
            ("İstanbul", "istanbul"),
            ("Ёлка", "елка"),
            ("Ἀθήνα", "αθηνα"),
            ("ﬁn", "FIN"),
        ] {
            assert_eq!(folded(one), folded(other));
        }
        for (one, other) in [("か", "が"), ("a", "b"), ("क", "कि"), ("ที", "ท")] {
            assert_ne!(folded(one), folded(other));
        }
    }
}
