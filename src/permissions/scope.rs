//! Scopes: where an assignment applies, and what a request asks for.

use std::cmp::Ordering;

use prost_types::Struct;
use serde_json::{Map, Number, Value, value::RawValue};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    ids::TenantId,
    pg::unreadable::{self, Of},
    proto::json,
};

/// A scope: JSON values by key.
pub type Scope = Map<String, Value>;

const MAX_KEYS: usize = 50;
const MAX_KEY: usize = 100;
const MAX_TEXT: usize = 1000;
const MAX_LISTED: usize = 1000;

/// Bytes of a scope that is stored, as JSON without spaces, at most.
const MAX_BYTES: usize = 8 * 1024;

/// Whether an assignment's scope applies to a request's: every key of it is in
/// the request's with an equal value, or one of the values when it is a list.
#[must_use]
pub fn applies(assigned: Option<&Scope>, requested: &Scope) -> bool {
    mismatches(assigned, requested).next().is_none()
}

/// The keys and values of an assignment's scope that the request's does not
/// match.
pub fn mismatches<'a>(
    assigned: Option<&'a Scope>,
    requested: &Scope,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let matches = |key: &str, wanted: &Value| {
        requested.get(key).is_some_and(|given| alternatives(wanted).any(|one| equal(one, given)))
    };
    assigned.into_iter().flatten().filter(move |(key, wanted)| !matches(key, wanted))
}

/// Equal as JSON: 1 and 1.0 are the same number.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare(a, b).is_eq(),
        (a, b) => a == b,
    }
}

/// An order of all scalars; what is equal in it is [`equal`]. Lists and objects come after
/// them, and have no order among themselves.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => double(a).total_cmp(&double(b)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

/// A number as a double, which -0.0 and 0.0 are one of.
fn double(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default() + 0.0
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// Whether a value is neither a list nor an object.
pub(super) fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// A request's scope; empty when unset. Any JSON may be in it.
///
/// # Errors
/// INVALID_ARGUMENT when it has a number that is no JSON number (NaN, infinite) or not
/// exact (2^53 and beyond), the character U+0000, or nests too deep.
pub fn requested(scope: Option<&Struct>) -> Result<Scope> {
    scope.map_or_else(|| Ok(Scope::new()), |scope| json::compared("scope", scope))
}

/// An assignment's scope, to give or to take; `None` when unset or without keys, which
/// applies everywhere. Postgres keeps it in its one form (`canonical_scope`).
///
/// # Errors
/// `INVALID_ARGUMENT` when a value is no string, number, bool, or list of those,
/// or there are too many of them.
pub fn assigned(scope: Option<&Struct>) -> Result<Option<Scope>> {
    let Some(scope) = scope.filter(|scope| !scope.fields.is_empty()) else { return Ok(None) };
    let scope = json::object("scope", scope)?;
    if scope.len() > MAX_KEYS {
        return Err(Error::field("scope", format!("must have at most {MAX_KEYS} keys")));
    }
    if scope.keys().any(|key| key.is_empty() || key.chars().count() > MAX_KEY) {
        return Err(Error::field("scope", format!("keys must have 1 to {MAX_KEY} characters")));
    }
    let all_plain = scope.values().all(|value| match value {
        Value::Array(listed) => {
            (1..=MAX_LISTED).contains(&listed.len()) && listed.iter().all(is_plain)
        }
        one => is_plain(one),
    });
    if !all_plain {
        return Err(Error::field(
            "scope",
            "values must be strings, numbers, bools, or non-empty lists of those",
        ));
    }
    Ok(Some(scope))
}

/// An assignment's scope that is to be stored.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is too long.
pub fn storable(scope: Option<Scope>) -> Result<Option<Scope>> {
    let bytes = scope.as_ref().map(serde_json::to_string);
    if bytes.is_some_and(|text| text.map_or(true, |text| text.len() > MAX_BYTES)) {
        return Err(Error::field("scope", format!("must have at most {MAX_BYTES} bytes as JSON")));
    }
    Ok(scope)
}

/// An assignment's scope can't be read.
pub struct Unreadable;

/// The scope of an assignment as it is kept; `None` applies everywhere.
///
/// # Errors
/// When it is none that [`assigned`] lets in, which is noted: the assignment does not
/// apply then.
pub fn kept(
    stored: Option<&RawValue>,
    tenant: TenantId,
    assignment: Uuid,
) -> Result<Option<Scope>, Unreadable> {
    let Some(stored) = stored else { return Ok(None) };
    let scope = json::read(stored).filter(|scope| {
        let is_fine = |value: &Value| is_scalar(value) && !value.is_null();
        !scope.is_empty() && scope.values().all(|value| alternatives(value).all(is_fine))
    });
    if scope.is_none() {
        unreadable::note(Of::role_assignment, tenant, assignment);
    }
    scope.map(Some).ok_or(Unreadable)
}

/// The values of a list, else the one value.
fn alternatives(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter()
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().count() <= MAX_TEXT,
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads like the table it is")]
    fn matches(assigned: Value, requested: Value) -> bool {
        let requested = requested.as_object().cloned().unwrap_or_default();
        applies(assigned.as_object(), &requested)
    }

    #[test]
    fn every_key_must_match() {
        assert!(matches(json!(null), json!({})), "unscoped applies everywhere");
        assert!(matches(json!({"p": "a"}), json!({"p": "a", "q": 1})));
        assert!(!matches(json!({"p": "a", "q": 1}), json!({"p": "a"})));
        assert!(!matches(json!({"p": "a"}), json!({"p": "A"})));
        assert!(!matches(json!({"p": "a"}), json!({})));
    }

    #[test]
    fn a_list_offers_its_values() {
        assert!(matches(json!({"p": ["a", "b"]}), json!({"p": "b"})));
        assert!(!matches(json!({"p": ["a", "b"]}), json!({"p": "c"})));
        assert!(!matches(json!({"p": ["a", "b"]}), json!({"p": ["a"]})));
        assert!(!matches(json!({"p": "a"}), json!({"p": ["a", "b"]})));
    }

    #[test]
    fn types_are_not_mixed_but_numbers_are_numbers() {
        assert!(matches(json!({"p": 1}), json!({"p": 1.0})));
        assert!(!matches(json!({"p": 1}), json!({"p": "1"})));
        assert!(!matches(json!({"p": true}), json!({"p": "true"})));
        assert!(!matches(json!({"p": false}), json!({"p": null})));
    }
}
