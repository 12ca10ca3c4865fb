//! JSON as protobuf carries it (`google.protobuf.Struct`) and as Postgres keeps
//! it.

use prost_types::{Struct, value::Kind};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// A protobuf Struct as a JSON object.
///
/// # Errors
/// INVALID_ARGUMENT naming `field` when a number is no JSON number, or Postgres
/// can't store a text.
pub fn object(field: &str, from: &Struct) -> Result<Map<String, Value>> {
    from.fields.iter().map(|(key, value)| Ok((text(field, key)?, json(field, value)?))).collect()
}

fn text(field: &str, from: &str) -> Result<String> {
    if from.contains('\0') {
        return Err(Error::field(field, "text must not contain the character U+0000"));
    }
    Ok(from.to_owned())
}

fn json(field: &str, from: &prost_types::Value) -> Result<Value> {
    Ok(match &from.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::StringValue(s)) => Value::String(text(field, s)?),
        Some(Kind::NumberValue(n)) => {
            Value::Number(number(*n).ok_or_else(|| Error::field(field, "numbers must be finite"))?)
        }
        Some(Kind::StructValue(s)) => Value::Object(object(field, s)?),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.iter().map(|v| json(field, v)).collect::<Result<_>>()?)
        }
    })
}

/// A protobuf number as JSON writes it: whole ones without a fraction.
fn number(from: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if from.fract() == 0.0 && from.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
        return Some(Number::from(from as i64));
    }
    Number::from_f64(from)
}

/// A JSON object as a protobuf Struct.
#[must_use]
pub fn to_struct(from: &Map<String, Value>) -> Struct {
    Struct { fields: from.iter().map(|(key, value)| (key.clone(), to_value(value))).collect() }
}

/// JSON as a protobuf Value.
#[must_use]
pub fn to_value(from: &Value) -> prost_types::Value {
    let kind = match from {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(list) => {
            Kind::ListValue(prost_types::ListValue { values: list.iter().map(to_value).collect() })
        }
        Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    prost_types::Value { kind: Some(kind) }
}
