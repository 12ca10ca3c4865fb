//! Scopes: the scope of an assignment limits the requests to which the assignment applies.
//! `assigned_scope.rs` compiles the scopes of assignments for fast checks.

use std::cmp::Ordering;

use prost_types::Struct;
use serde_json::{Map, Number, Value, value::RawValue};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    ids::TenantId,
    pg::unreadable::{self, Table},
    proto::json,
};

/// A scope: JSON values by key.
pub type Scope = Map<String, Value>;

/// Maximum number of keys of an assigned scope.
const MAX_KEYS: usize = 50;

/// Maximum length of a key, in characters.
const MAX_KEY_CHARS: usize = 100;

/// Maximum length of a text value, in characters.
const MAX_TEXT_CHARS: usize = 1000;

/// Maximum number of values of a list.
const MAX_LIST_VALUES: usize = 1000;

/// The maximum size of a stored scope, in bytes of JSON without spaces.
const MAX_BYTES: usize = 8 * 1024;

/// Whether an assignment's scope applies to the scope of a request. The request's scope must have
/// each key of the assignment's scope with an equal value. If the assignment has a list, the
/// request's value must equal one of the values of the list. An assignment without a scope always
/// applies.
#[must_use]
pub fn applies(assigned: Option<&Scope>, requested: &Scope) -> bool {
    mismatches(assigned, requested).next().is_none()
}

/// The keys and values of an assignment's scope that the request's scope does not match.
pub fn mismatches<'a>(
    assigned: Option<&'a Scope>,
    requested: &Scope,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let matches = |key: &str, required: &Value| {
        requested
            .get(key)
            .is_some_and(|value| allowed_values(required).any(|allowed| equal(allowed, value)))
    };
    assigned.into_iter().flatten().filter(move |(key, value)| !matches(key, value))
}

/// Whether two JSON values are equal. 1 and 1.0 are the same number.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare(a, b).is_eq(),
        (a, b) => a == b,
    }
}

/// Compares two values. Scalars are ordered by type, then by value, and two scalars compare as
/// equal exactly when they are [`equal`]. Lists come after all scalars, and objects after all
/// lists. All lists compare as equal, and so do all objects.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => to_double(a).total_cmp(&to_double(b)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => type_rank(a).cmp(&type_rank(b)),
    }
}

/// A number as a double. Adding 0.0 changes -0.0 to 0.0, so that both zeros are equal.
fn to_double(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default() + 0.0
}

/// The position of the value's type in the order of values.
fn type_rank(value: &Value) -> u8 {
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

/// The scope of a Check; empty when unset. The scope may have any JSON values.
///
/// # Errors
/// Returns INVALID_ARGUMENT when the scope has a number that is not finite or not exact (2^53 and
/// beyond), has the character U+0000, or is nested too deep.
pub fn parse_requested(scope: Option<&Struct>) -> Result<Scope> {
    scope.map_or_else(|| Ok(Scope::new()), |scope| json::object_for_comparison("scope", scope))
}

/// The scope of an assignment, from a request to assign or unassign a role. Returns `None` when the
/// scope is unset or has no keys: the assignment then applies everywhere. Postgres stores the scope
/// in canonical form (SQL function `canonical_scope`).
///
/// # Errors
/// Returns `INVALID_ARGUMENT` when a value is not a string, number, bool or list of those, or when
/// the scope exceeds a limit.
pub fn parse_assigned(scope: Option<&Struct>) -> Result<Option<Scope>> {
    let Some(scope) = scope.filter(|scope| !scope.fields.is_empty()) else { return Ok(None) };
    let scope = json::object("scope", scope)?;
    if scope.len() > MAX_KEYS {
        return Err(Error::field("scope", format!("must have at most {MAX_KEYS} keys")));
    }
    if scope.keys().any(|key| key.is_empty() || key.chars().count() > MAX_KEY_CHARS) {
        return Err(Error::field(
            "scope",
            format!("keys must have 1 to {MAX_KEY_CHARS} characters"),
        ));
    }
    let all_valid = scope.values().all(|value| match value {
        Value::Array(list) => {
            (1..=MAX_LIST_VALUES).contains(&list.len()) && list.iter().all(is_valid_scalar)
        }
        value => is_valid_scalar(value),
    });
    if !all_valid {
        return Err(Error::field(
            "scope",
            "values must be strings, numbers, bools, or non-empty lists of those",
        ));
    }
    Ok(Some(scope))
}

/// Checks that an assignment's scope is not too large to be stored.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` when the scope as JSON has more than the maximum number of bytes.
pub fn check_size(scope: Option<Scope>) -> Result<Option<Scope>> {
    let bytes = scope.as_ref().map(serde_json::to_string);
    if bytes.is_some_and(|text| text.map_or(true, |text| text.len() > MAX_BYTES)) {
        return Err(Error::field("scope", format!("must have at most {MAX_BYTES} bytes as JSON")));
    }
    Ok(scope)
}

/// The error for a stored scope of an assignment that can't be read.
pub struct UnreadableScope;

/// The stored scope of an assignment; `None` applies everywhere.
///
/// # Errors
/// Returns [`UnreadableScope`] when the stored value is not the scope of an assignment. Then the
/// row is also logged and counted, and the assignment must not apply.
pub fn from_stored(
    stored: Option<&RawValue>,
    tenant: TenantId,
    assignment: Uuid,
) -> Result<Option<Scope>, UnreadableScope> {
    let Some(stored) = stored else { return Ok(None) };
    let scope = json::read(stored).filter(|scope| {
        let is_valid = |value: &Value| is_scalar(value) && !value.is_null();
        !scope.is_empty() && scope.values().all(|value| allowed_values(value).all(is_valid))
    });
    if scope.is_none() {
        unreadable::report(Table::role_assignment, tenant, assignment);
    }
    scope.map(Some).ok_or(UnreadableScope)
}

/// The values that an assigned value allows: the values of a list, or the single value.
fn allowed_values(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter()
}

/// Whether the scope of an assignment may have this value, alone or in a list.
fn is_valid_scalar(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().count() <= MAX_TEXT_CHARS,
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the tests are easier to read without references"
    )]
    fn matches(assigned: Value, requested: Value) -> bool {
        let requested = requested.as_object().cloned().unwrap_or_default();
        applies(assigned.as_object(), &requested)
    }

    #[test]
    fn a_scope_applies_only_when_every_key_matches() {
        assert!(
            matches(json!(null), json!({})),
            "an assignment without a scope applies everywhere"
        );
        assert!(matches(json!({"p": "a"}), json!({"p": "a", "q": 1})));
        assert!(!matches(json!({"p": "a", "q": 1}), json!({"p": "a"})));
        assert!(!matches(json!({"p": "a"}), json!({"p": "A"})));
        assert!(!matches(json!({"p": "a"}), json!({})));
    }

    #[test]
    fn an_assigned_list_matches_each_of_its_values() {
        assert!(matches(json!({"p": ["a", "b"]}), json!({"p": "b"})));
        assert!(!matches(json!({"p": ["a", "b"]}), json!({"p": "c"})));
        assert!(!matches(json!({"p": ["a", "b"]}), json!({"p": ["a"]})));
        assert!(!matches(json!({"p": "a"}), json!({"p": ["a", "b"]})));
    }

    #[test]
    fn only_equal_values_of_the_same_type_match() {
        assert!(matches(json!({"p": 1}), json!({"p": 1.0})));
        assert!(!matches(json!({"p": 1}), json!({"p": "1"})));
        assert!(!matches(json!({"p": true}), json!({"p": "true"})));
        assert!(!matches(json!({"p": false}), json!({"p": null})));
    }
}
