//! Values from earlier replies: ids, tokens and names of every kind and tenant. With these values,
//! the fuzzer's requests refer to existing objects, deleted objects, and objects of another kind.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRng;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

/// Maximum number of stored values per name. A new value replaces the oldest value.
const KEPT: usize = 200;

/// Fields whose values the fuzzer sends again, and the name under which the values are stored.
const LEARNT: &[(&str, &str)] = &[
    ("id", "id"),
    ("user_id", "id"),
    ("role_id", "id"),
    ("session_id", "id"),
    ("tenant_id", "id"),
    ("next_page_token", "page_token"),
    ("consistency_token", "consistency_token"),
    ("etag", "etag"),
    ("email", "email"),
    ("slug", "slug"),
    ("name", "name"),
    ("access_token", "token"),
    ("refresh_token", "refresh_token"),
    ("secret", "api_key"),
    ("position", "position"),
];

/// The stored values.
#[derive(Default)]
pub struct Known {
    /// Values by name, oldest first.
    values: BTreeMap<String, Vec<String>>,
    /// Values that are never stored.
    never: Vec<String>,
}

impl Known {
    /// Excludes a value from now on, because it names an object that the fuzzer must not touch.
    pub fn never(&mut self, value: &str) {
        self.never.push(value.to_owned());
    }

    /// Stores a value under a name.
    pub fn learn(&mut self, name: &str, value: &str) {
        if value.is_empty() || self.never.iter().any(|never| never == value) {
            return;
        }
        let values = self.values.entry(name.to_owned()).or_default();
        if values.len() == KEPT {
            values.remove(0);
        }
        values.push(value.to_owned());
    }

    /// Stores the values of a reply. Ids are also stored under the type of their object.
    pub fn learn_from(&mut self, message: &DynamicMessage) {
        let kind = message.descriptor().name().to_owned();
        for (field, value) in message.fields() {
            match value {
                Value::Message(inner) => self.learn_from(inner),
                Value::List(items) => {
                    for inner in items.iter().filter_map(Value::as_message).take(20) {
                        self.learn_from(inner);
                    }
                }
                Value::String(text) => {
                    if let Some((_, name)) = LEARNT.iter().find(|(own, _)| *own == field.name()) {
                        self.learn(name, text);
                    }
                    if field.name() == "id" {
                        self.learn(&kind, text);
                    }
                }
                _ => {}
            }
        }
    }

    /// A random value of a name. Recent values are more likely.
    pub fn one(&self, name: &str, rng: &mut TestRng) -> Option<String> {
        let values = self.values.get(name).filter(|values| !values.is_empty())?;
        let from = if rng.random_bool(0.8) { values.len().saturating_sub(15) } else { 0 };
        Some(values[rng.random_range(from..values.len())].clone())
    }
}
