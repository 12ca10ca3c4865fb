//! Conversion of JSON between protobuf (`google.protobuf.Struct`) and Postgres.
//!
//! Postgres can store JSON that this program and its clients can't read: numbers that don't fit
//! into a double, and nesting that is too deep. Therefore columns are decoded as [`Stored`], and
//! each value is parsed separately: one unreadable value does not make the other rows unreadable.

use prost_types::{Struct, value::Kind};
use serde_json::{Map, Number, Value, value::RawValue};
use sqlx::types::Json;

use crate::error::{Error, Result};

/// The maximum nesting depth of objects and lists, including the outermost. Protobuf decoders of
/// clients accept 100 nested messages, and each object takes three: the Struct, an entry of its
/// map, and the Value.
pub const MAX_DEPTH: usize = 20;

/// The smallest positive whole number that a double can't distinguish from the next whole number:
/// 2^53.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

/// The raw JSON of a column, not parsed yet.
pub type Stored = Json<Box<RawValue>>;

/// Converts a protobuf Struct to a JSON object that is stored. A later read of the object returns
/// exactly the same value.
///
/// # Errors
/// Returns INVALID_ARGUMENT for `field` when a value is not set, a number is not finite or would
/// change, a text has U+0000, or the nesting is too deep.
pub fn object(field: &str, from: &Struct) -> Result<Map<String, Value>> {
    StructReader { field, is_stored: true }.object(from, 1)
}

/// Converts a protobuf Struct to a JSON object that is only compared, not stored. Works like
/// [`object`], but converts negative zero to zero.
///
/// # Errors
/// The same as [`object`].
pub fn object_for_comparison(field: &str, from: &Struct) -> Result<Map<String, Value>> {
    StructReader { field, is_stored: false }.object(from, 1)
}

struct StructReader<'a> {
    field: &'a str,
    /// Whether the converted object is stored. Otherwise it is only compared.
    is_stored: bool,
}

impl StructReader<'_> {
    fn object(&self, from: &Struct, depth: usize) -> Result<Map<String, Value>> {
        self.check_depth(depth)?;
        let entries = from.fields.iter();
        entries.map(|(key, value)| Ok((self.text(key)?, self.value(value, depth)?))).collect()
    }

    /// Converts a value that is inside an object or list at `depth`.
    fn value(&self, from: &prost_types::Value, depth: usize) -> Result<Value> {
        Ok(match &from.kind {
            // `google.protobuf.Value` documents that a value without a kind is an error.
            None => return self.refuse("each value must be set; use null_value for null"),
            Some(Kind::NullValue(_)) => Value::Null,
            Some(Kind::BoolValue(b)) => Value::Bool(*b),
            Some(Kind::StringValue(s)) => Value::String(self.text(s)?),
            Some(Kind::NumberValue(n)) => Value::Number(self.number(*n)?),
            Some(Kind::StructValue(s)) => Value::Object(self.object(s, depth + 1)?),
            Some(Kind::ListValue(list)) => {
                self.check_depth(depth + 1)?;
                let items = list.values.iter().map(|item| self.value(item, depth + 1));
                Value::Array(items.collect::<Result<_>>()?)
            }
        })
    }

    fn check_depth(&self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return self.refuse(&format!("must be nested at most {MAX_DEPTH} deep"));
        }
        Ok(())
    }

    fn text(&self, from: &str) -> Result<String> {
        if from.contains('\0') {
            return self.refuse("text must not contain the character U+0000");
        }
        Ok(from.to_owned())
    }

    /// Converts a number. Whole numbers are written without a fraction.
    fn number(&self, from: f64) -> Result<Number> {
        if from.is_finite() && from.abs() >= FIRST_INEXACT {
            return self.refuse("whole numbers must be below 2^53: write ids as strings");
        }
        if from == 0.0 && from.is_sign_negative() {
            if self.is_stored {
                return self.refuse("numbers must not be negative zero");
            }
            return Ok(Number::from(0));
        }
        if from.fract() == 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
            return Ok(Number::from(from as i64));
        }
        let number = Number::from_f64(from);
        number.map_or_else(|| self.refuse("numbers must be finite"), Ok)
    }

    fn refuse<T>(&self, text: &str) -> Result<T> {
        Err(Error::field(self.field, text))
    }
}

/// Parses a stored JSON object. Returns `None` when it is not an object, has a number that does
/// not fit into a double, or is nested too deep for the parser.
#[must_use]
pub fn read(stored: &RawValue) -> Option<Map<String, Value>> {
    serde_json::from_str(stored.get()).ok()
}

/// Converts a JSON object to the type of a column.
///
/// # Errors
/// Never fails for an object that was parsed or created by this program.
pub fn to_stored(object: &Map<String, Value>) -> Result<Stored> {
    let raw = serde_json::value::to_raw_value(object);
    raw.map(Json).map_err(|_| Error::defect("an object can't be encoded as JSON"))
}

/// Whether an object is nested deeper than clients can decode.
#[must_use]
pub fn is_too_deep(object: &Map<String, Value>) -> bool {
    // The object itself is one level more.
    object.values().any(|value| reaches(value, MAX_DEPTH))
}

/// Whether a value has at least `depth` levels of nested objects or lists.
fn reaches(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 1 || items.iter().any(|item| reaches(item, depth - 1)),
        Value::Object(map) => depth == 1 || map.values().any(|item| reaches(item, depth - 1)),
        _ => false,
    }
}

/// Converts a JSON object to a protobuf Struct. Values that are nested deeper than [`MAX_DEPTH`]
/// become null, because clients can't decode them.
#[must_use]
pub fn to_struct(from: &Map<String, Value>) -> Struct {
    struct_at(from, 1)
}

/// Converts JSON to a protobuf Value, with the same limit on the depth as [`to_struct`].
#[must_use]
pub fn to_value(from: &Value) -> prost_types::Value {
    value_at(from, 1)
}

fn struct_at(from: &Map<String, Value>, depth: usize) -> Struct {
    let entries = from.iter().map(|(key, value)| (key.clone(), value_at(value, depth)));
    Struct { fields: entries.collect() }
}

/// Converts a value that is inside an object or list at `depth`.
fn value_at(from: &Value, depth: usize) -> prost_types::Value {
    let inner = depth + 1;
    let kind = match from {
        Value::Array(_) | Value::Object(_) if inner > MAX_DEPTH => Kind::NullValue(0),
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(list) => {
            let values = list.iter().map(|item| value_at(item, inner)).collect();
            Kind::ListValue(prost_types::ListValue { values })
        }
        Value::Object(map) => Kind::StructValue(struct_at(map, inner)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(value: f64, is_stored: bool) -> Result<Number> {
        StructReader { field: "scope", is_stored }.number(value)
    }

    /// N01: a stored number is never changed.
    #[test]
    fn a_number_is_stored_exactly_or_refused() {
        for exact in [0.0, 1.0, -1.0, 0.1, 0.418_172_151_370_759_47, f64::MIN_POSITIVE, 5e-324] {
            let text = number(exact, true).expect("the number is accepted").to_string();
            let parsed: Value = serde_json::from_str(&text).expect("the text is JSON");
            assert_eq!(parsed.as_f64().map(f64::to_bits), Some(exact.to_bits()), "{text}");
        }
        assert_eq!(
            number(9_007_199_254_740_991.0, true).ok(),
            Some(Number::from((1_i64 << 53) - 1))
        );
        for inexact in
            [FIRST_INEXACT, -FIRST_INEXACT, 1e300, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY]
        {
            assert!(number(inexact, true).is_err() && number(inexact, false).is_err(), "{inexact}");
        }
        assert!(number(-0.0, true).is_err());
        assert_eq!(number(-0.0, false).ok(), Some(Number::from(0)));
    }

    /// An object of the given depth. `wrap` adds one level.
    fn nested(depth: usize, wrap: impl Fn(Value) -> Value) -> Map<String, Value> {
        let inner = (1..depth).fold(json!(1), |inner, _| wrap(inner));
        [("a".to_owned(), inner)].into_iter().collect()
    }

    /// N02: a deeper value in a request is refused, and a deeper stored value is shortened.
    #[test]
    fn the_depth_is_bounded_in_requests_and_in_stored_values() {
        let objects = |depth| nested(depth, |inner| json!({ "a": inner }));
        let lists = |depth| nested(depth, |inner| json!([inner]));
        for deepest in [objects(MAX_DEPTH), lists(MAX_DEPTH)] {
            assert!(!is_too_deep(&deepest));
            let converted = object("settings", &to_struct(&deepest)).expect("the depth is allowed");
            assert_eq!(converted, deepest);
        }
        for too_deep in [objects(MAX_DEPTH + 1), lists(MAX_DEPTH + 1), objects(100)] {
            assert!(is_too_deep(&too_deep));
            // `to_struct` replaces the levels that are too deep by null.
            let shortened =
                object("settings", &to_struct(&too_deep)).expect("the depth is allowed");
            assert!(!is_too_deep(&shortened));
        }
        let mut too_deep = to_struct(&objects(MAX_DEPTH));
        for _ in 0..2 {
            let value = prost_types::Value { kind: Some(Kind::StructValue(too_deep)) };
            too_deep = Struct { fields: [("a".to_owned(), value)].into() };
            assert!(object("settings", &too_deep).is_err());
            assert!(object_for_comparison("scope", &too_deep).is_err());
        }
    }

    /// N01: a value without a kind would be stored as null.
    #[test]
    fn a_value_without_a_kind_is_refused() {
        let unset = prost_types::Value { kind: None };
        let list = prost_types::ListValue { values: vec![unset.clone()] };
        let in_list = prost_types::Value { kind: Some(Kind::ListValue(list)) };
        let null = prost_types::Value { kind: Some(Kind::NullValue(0)) };
        for (value, is_accepted) in [(unset, false), (in_list, false), (null, true)] {
            let from = Struct { fields: [("a".to_owned(), value)].into() };
            assert_eq!(object("settings", &from).is_ok(), is_accepted);
            assert_eq!(object_for_comparison("scope", &from).is_ok(), is_accepted);
        }
    }

    /// N01: a stored value that cannot be read is no error.
    #[test]
    fn a_read_of_unreadable_json_returns_none() {
        let read =
            |text: &str| read(&RawValue::from_string(text.to_owned()).expect("the text is JSON"));
        assert!(read(r#"{"a":1}"#).is_some());
        let huge_number = format!(r#"{{"a":1{}}}"#, "0".repeat(400));
        let too_deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for unreadable in ["[]", "null", "1", &huge_number, &too_deep] {
            assert!(read(unreadable).is_none(), "{unreadable}");
        }
    }
}
