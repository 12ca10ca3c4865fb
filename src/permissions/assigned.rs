//! The scope of an assignment, compiled for fast Checks. A long list in a scope is searched in
//! logarithmic time. A compiled scope uses as little memory as possible.

use std::mem::size_of;

use aws_lc_rs::digest;
use prost_types::Struct;
use serde_json::Value;

use super::{
    Scope,
    scope::{compare, equal, is_scalar},
};
use crate::proto::json;

/// Lists with at most this many values are searched linearly.
const MAX_LINEAR: usize = 8;

/// Length of the key that identifies a scope, in bytes.
pub const KEY: usize = 16;

/// Overhead of the allocator for each block, in bytes.
const BLOCK_OVERHEAD: usize = 16;

/// The compiled scope of an assignment.
#[derive(Clone, Debug)]
pub struct AssignedScope(Box<[Entry]>);

/// One key of the scope, and the value or list of values that it requires.
#[derive(Clone, Debug)]
struct Entry {
    key: Box<str>,
    required: Value,
    /// For a long list of scalars, the positions of its values, in ascending order of the values.
    /// Empty for everything else.
    sorted: Box<[u32]>,
}

impl AssignedScope {
    /// Compiles a scope.
    #[must_use]
    pub fn compile(scope: Scope) -> Self {
        Self(scope.into_iter().map(|(key, required)| Entry::new(key, required)).collect())
    }

    /// Whether the scope applies to the scope of a request. Gives the same result as
    /// [`applies`](super::scope::applies) for the scope that was compiled.
    #[must_use]
    pub fn applies(&self, requested: &Scope) -> bool {
        self.0
            .iter()
            .all(|entry| requested.get(&*entry.key).is_some_and(|value| entry.matches(value)))
    }

    /// The scope as it was before compilation.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        let fields = self.0.iter().map(|entry| {
            let key = entry.key.clone().into_string();
            (key, json::to_value(&entry.required))
        });
        Struct { fields: fields.collect() }
    }

    /// A key that identifies this scope: the first 16 bytes of the SHA-256 of all keys and values.
    #[must_use]
    pub fn key(&self) -> [u8; KEY] {
        let mut hash = digest::Context::new(&digest::SHA256);
        for entry in &self.0 {
            for part in [entry.key.as_bytes(), entry.required.to_string().as_bytes()] {
                hash.update(&part.len().to_be_bytes());
                hash.update(part);
            }
        }
        let mut key = [0; KEY];
        key.copy_from_slice(&hash.finish().as_ref()[..KEY]);
        key
    }

    /// Approximate memory use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries = self.0.iter().map(|entry| {
            let key = entry.key.len() + BLOCK_OVERHEAD;
            let sorted = entry.sorted.len() * size_of::<u32>();
            size_of::<Entry>() + key + heap_bytes(&entry.required) + sorted
        });
        BLOCK_OVERHEAD + entries.sum::<usize>()
    }
}

impl Entry {
    fn new(key: String, mut required: Value) -> Self {
        let sorted = match &mut required {
            Value::Array(listed) => {
                listed.shrink_to_fit();
                sorted(listed)
            }
            _ => Box::default(),
        };
        Self { key: key.into_boxed_str(), required, sorted }
    }

    fn matches(&self, value: &Value) -> bool {
        match &self.required {
            Value::Array(listed) if self.sorted.is_empty() => {
                listed.iter().any(|item| equal(item, value))
            }
            Value::Array(listed) => {
                let order = |&index: &u32| compare(&listed[index as usize], value);
                self.sorted.binary_search_by(order).is_ok()
            }
            required => equal(required, value),
        }
    }
}

/// The positions of a long list's values, in ascending order of the values. Empty for a short
/// list. Also empty for a list with a value that is not a scalar, because only scalars have an
/// order.
fn sorted(listed: &[Value]) -> Box<[u32]> {
    if listed.len() <= MAX_LINEAR || !listed.iter().all(is_scalar) {
        return Box::default();
    }
    let mut positions: Vec<u32> = (0..).take(listed.len()).collect();
    positions.sort_unstable_by(|&a, &b| compare(&listed[a as usize], &listed[b as usize]));
    positions.into()
}

/// Approximate heap memory of a value, in bytes.
fn heap_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() + BLOCK_OVERHEAD,
        Value::Array(listed) => {
            let items = listed.iter().map(|item| size_of::<Value>() + heap_bytes(item));
            BLOCK_OVERHEAD + items.sum::<usize>()
        }
        // Objects can't be stored any more. An old object takes about as much memory as its text.
        Value::Object(map) => map.iter().map(|(key, item)| 64 + key.len() + heap_bytes(item)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::{super::scope, *};

    /// A linear congruential generator (Knuth's MMIX).
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(self.0 >> 33).expect("the number fits") % limit
        }

        fn value(&mut self) -> Value {
            let small = self.below(12);
            match self.below(12) {
                0 => json!(small),
                1 => json!(-i64::try_from(small).expect("the number fits")),
                2 => json!(f64::from(u32::try_from(small).expect("the number fits")) / 2.0),
                3 => json!(-0.0),
                4 => json!(small.is_multiple_of(2)),
                5 => json!(null),
                6 => json!([small]),
                7 => json!({ "a": small }),
                8 => json!(u64::MAX - small as u64),
                9 => json!(i64::MIN + i64::try_from(small).expect("the number fits")),
                10 => json!(1e300),
                _ => json!(small.to_string()),
            }
        }

        /// A single value, or a list. Most lists have only scalars.
        fn scope_value(&mut self) -> Value {
            if self.below(3) == 0 {
                return self.value();
            }
            let only_scalars = self.below(4) > 0;
            let listed = (0..self.below(40)).map(|_| self.value());
            let listed = listed.filter(|value| !only_scalars || is_scalar(value));
            Value::Array(listed.collect())
        }
    }

    /// N21: the compiled scope and the plain scope agree for every kind of value.
    #[test]
    fn a_compiled_scope_applies_exactly_when_the_plain_scope_applies() {
        let mut rng = Rng(21);
        let (mut applied, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let keys = ["a", "b"];
            let assigned: Map<_, _> =
                keys.iter().take(rng.below(3)).map(|k| ((*k).into(), rng.scope_value())).collect();
            let compiled = AssignedScope::compile(assigned.clone());
            assert_eq!(compiled.to_struct(), json::to_struct(&assigned));
            let requested: Map<_, _> = keys.iter().map(|k| ((*k).into(), rng.value())).collect();
            let is_match = scope::applies(Some(&assigned), &requested);
            assert_eq!(compiled.applies(&requested), is_match, "{assigned:?} {requested:?}");
            if is_match { applied += 1 } else { refused += 1 }
        }
        assert!(applied > 1000 && refused > 1000, "{applied} {refused}");
    }

    #[test]
    fn only_a_long_list_has_an_index() {
        let list: Vec<_> = (0..1000).map(|n| json!(format!("p{n}"))).collect();
        let scope = |list: &[Value]| {
            AssignedScope::compile([("p".to_owned(), json!(list))].into_iter().collect())
        };
        assert_eq!(scope(&list).0[0].sorted.len(), 1000);
        assert!(scope(&list[..MAX_LINEAR]).0[0].sorted.is_empty());
        let bytes = scope(&list).bytes();
        assert!((30_000..80_000).contains(&bytes), "{bytes}");
    }
}
