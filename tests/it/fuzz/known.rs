//! What the fuzzer has learnt: ids, tokens and names from earlier replies, of every kind
//! and every tenant, so that its requests name things that exist, once existed, or are of
//! another kind.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRng;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

/// The values that are kept of each name; older ones make room.
const KEPT: usize = 200;

/// Fields whose values are worth sending again, and what they are kept as.
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

/// What was learnt.
#[derive(Default)]
pub struct Known {
    /// Values by name.
    values: BTreeMap<String, Vec<String>>,
    /// Values that are never learnt.
    never: Vec<String>,
}

impl Known {
    /// Knows nothing of a value from here on: what it names is not the fuzzer's.
    pub fn never(&mut self, value: &str) {
        self.never.push(value.to_owned());
    }

    /// Keeps a value. Ids are also kept by the type of what they name.
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

    /// Keeps what a reply tells.
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

    /// One of the values of a name, recent ones more often.
    pub fn one(&self, name: &str, rng: &mut TestRng) -> Option<String> {
        let values = self.values.get(name).filter(|values| !values.is_empty())?;
        let from = if rng.random_bool(0.8) { values.len().saturating_sub(15) } else { 0 };
        Some(values[rng.random_range(from..values.len())].clone())
    }
}
