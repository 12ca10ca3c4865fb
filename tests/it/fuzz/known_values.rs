//! Values from earlier replies: ids, tokens and names of every kind and tenant. With these values,
//! the fuzzer's requests refer to existing objects, deleted objects, and objects of another kind.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRng;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

/// Maximum number of stored values per name. A new value replaces the oldest value.
const MAX_VALUES: usize = 200;

/// Fields whose values the fuzzer sends again, and the name under which the values are stored.
const STORED_FIELDS: &[(&str, &str)] = &[
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
pub struct KnownValues {
    /// Values by name, oldest first.
    values: BTreeMap<String, Vec<String>>,
    /// Values that are never stored.
    excluded: Vec<String>,
}

impl KnownValues {
    /// Excludes the id or name of an object that the fuzzer must not change.
    pub fn exclude(&mut self, value: &str) {
        self.excluded.push(value.to_owned());
    }

    /// Stores a value under a name.
    pub fn store(&mut self, name: &str, value: &str) {
        if value.is_empty() || self.excluded.iter().any(|excluded| excluded == value) {
            return;
        }
        let values = self.values.entry(name.to_owned()).or_default();
        if values.len() == MAX_VALUES {
            values.remove(0);
        }
        values.push(value.to_owned());
    }

    /// Stores the values of a reply. Ids are also stored under the type of their object.
    pub fn store_from(&mut self, message: &DynamicMessage) {
        let kind = message.descriptor().name().to_owned();
        for (field, value) in message.fields() {
            match value {
                Value::Message(inner) => self.store_from(inner),
                Value::List(items) => {
                    for inner in items.iter().filter_map(Value::as_message).take(20) {
                        self.store_from(inner);
                    }
                }
                Value::String(text) => {
                    if let Some((_, name)) =
                        STORED_FIELDS.iter().find(|(field_name, _)| *field_name == field.name())
                    {
                        self.store(name, text);
                    }
                    if field.name() == "id" {
                        self.store(&kind, text);
                    }
                }
                _ => {}
            }
        }
    }

    /// A random value of a name. Recent values are more likely.
    pub fn pick(&self, name: &str, rng: &mut TestRng) -> Option<String> {
        let values = self.values.get(name).filter(|values| !values.is_empty())?;
        let first = if rng.random_bool(0.8) { values.len().saturating_sub(15) } else { 0 };
        Some(values[rng.random_range(first..values.len())].clone())
    }
}
