//! The scope of an assignment, compiled for fast Checks. A long list in a scope is searched in
//! logarithmic time. A compiled scope uses as little memory as possible, because the cache has many
//! scopes.

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

/// Length of the digest of a scope, in bytes.
pub const DIGEST_BYTES: usize = 16;

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
    /// Empty for a short list, for a list with other values, and for a single value.
    sorted_positions: Box<[u32]>,
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

    /// A digest that identifies this scope: the first 16 bytes of the SHA-256 of all keys and
    /// values.
    #[must_use]
    pub fn digest(&self) -> [u8; DIGEST_BYTES] {
        let mut hash = digest::Context::new(&digest::SHA256);
        for entry in &self.0 {
            for part in [entry.key.as_bytes(), entry.required.to_string().as_bytes()] {
                hash.update(&part.len().to_be_bytes());
                hash.update(part);
            }
        }
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&hash.finish().as_ref()[..DIGEST_BYTES]);
        digest
    }

    /// Approximate memory use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries = self.0.iter().map(|entry| {
            let key = entry.key.len() + BLOCK_OVERHEAD;
            let positions = entry.sorted_positions.len() * size_of::<u32>();
            size_of::<Entry>() + key + heap_bytes(&entry.required) + positions
        });
        BLOCK_OVERHEAD + entries.sum::<usize>()
    }
}

impl Entry {
    fn new(key: String, mut required: Value) -> Self {
        let sorted_positions = match &mut required {
            Value::Array(list) => {
                list.shrink_to_fit();
                sorted_positions(list)
            }
            _ => Box::default(),
        };
        Self { key: key.into_boxed_str(), required, sorted_positions }
    }

    fn matches(&self, value: &Value) -> bool {
        match &self.required {
            Value::Array(list) if self.sorted_positions.is_empty() => {
                list.iter().any(|item| equal(item, value))
            }
            Value::Array(list) => {
                let compare_item = |&position: &u32| compare(&list[position as usize], value);
                self.sorted_positions.binary_search_by(compare_item).is_ok()
            }
            required => equal(required, value),
        }
    }
}

/// The positions of a long list's values, in ascending order of the values. Empty for a short
/// list. Also empty for a list with a value that is not a scalar, because only scalars have an
/// order.
fn sorted_positions(list: &[Value]) -> Box<[u32]> {
    if list.len() <= MAX_LINEAR || !list.iter().all(is_scalar) {
        return Box::default();
    }
    let mut positions: Vec<u32> = (0..).take(list.len()).collect();
    positions.sort_unstable_by(|&a, &b| compare(&list[a as usize], &list[b as usize]));
    positions.into()
}

/// Approximate heap memory of a value, in bytes.
fn heap_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() + BLOCK_OVERHEAD,
        Value::Array(list) => {
            let items = list.iter().map(|item| size_of::<Value>() + heap_bytes(item));
            BLOCK_OVERHEAD + items.sum::<usize>()
        }
        // Only an earlier version stored objects. 64 bytes estimate one entry of an object.
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

        /// A small or an extreme value of any type.
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
            let list = (0..self.below(40)).map(|_| self.value());
            let list = list.filter(|value| !only_scalars || is_scalar(value));
            Value::Array(list.collect())
        }
    }

    /// N21: the compiled scope and the plain scope agree for every kind of value.
    #[test]
    fn a_compiled_scope_applies_exactly_when_the_plain_scope_applies() {
        let mut rng = Rng(21);
        let (mut match_count, mut mismatch_count) = (0, 0);
        for _ in 0..20_000 {
            let keys = ["a", "b"];
            let assigned: Map<_, _> =
                keys.iter().take(rng.below(3)).map(|k| ((*k).into(), rng.scope_value())).collect();
            let compiled = AssignedScope::compile(assigned.clone());
            assert_eq!(compiled.to_struct(), json::to_struct(&assigned));
            let requested: Map<_, _> = keys.iter().map(|k| ((*k).into(), rng.value())).collect();
            let is_match = scope::applies(Some(&assigned), &requested);
            assert_eq!(compiled.applies(&requested), is_match, "{assigned:?} {requested:?}");
            if is_match { match_count += 1 } else { mismatch_count += 1 }
        }
        // Both results must be frequent, or the test would compare little.
        assert!(match_count > 1000 && mismatch_count > 1000, "{match_count} {mismatch_count}");
    }

    #[test]
    fn only_a_long_list_has_sorted_positions() {
        let list: Vec<_> = (0..1000).map(|n| json!(format!("p{n}"))).collect();
        let scope = |list: &[Value]| {
            AssignedScope::compile([("p".to_owned(), json!(list))].into_iter().collect())
        };
        assert_eq!(scope(&list).0[0].sorted_positions.len(), 1000);
        assert!(scope(&list[..MAX_LINEAR]).0[0].sorted_positions.is_empty());
        // About 57 bytes for each value: the value, its text with the allocator's overhead, and its
        // position.
        let bytes = scope(&list).bytes();
        assert!((30_000..80_000).contains(&bytes), "{bytes}");
    }
}
