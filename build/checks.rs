//! Turns supported rules into conditions in Rust code, and into the descriptions of violations.

use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, Value};

use crate::rules::{set_rules, unsupported};

/// A condition on the variable `this`, a reference to the value, as Rust code; and the description
/// of a violation, which the client gets.
pub struct Check {
    pub condition: String,
    pub description: String,
}

/// The distinct patterns of all fields read so far. The server compiles each pattern once.
#[derive(Default)]
pub struct Patterns(pub Vec<String>);

/// The check for one rule of a string, bytes or enum field. Returns `None` for a rule that is not
/// supported.
pub fn rule_check(
    kind: &Kind,
    rule: &str,
    value: &Value,
    patterns: &mut Patterns,
) -> Result<Option<Check>, String> {
    let (condition, description) = match (kind, rule, value) {
        (Kind::String, "min_len", Value::U64(n)) => {
            (format!("validate::chars(this) >= {n}"), at_least(*n, "character"))
        }
        (Kind::String, "max_len", Value::U64(n)) => {
            (format!("validate::chars(this) <= {n}"), at_most(*n, "character"))
        }
        (Kind::String, "min_bytes", Value::U64(n)) => {
            (format!("this.len() >= {n}"), at_least(*n, "byte"))
        }
        (Kind::String, "max_bytes", Value::U64(n)) | (Kind::Bytes, "max_len", Value::U64(n)) => {
            (format!("this.len() <= {n}"), at_most(*n, "byte"))
        }
        (Kind::String, "pattern", Value::String(pattern)) => (
            format!("validate::matches(&PATTERN_{}, this)", patterns.add(pattern)?),
            describe_pattern(pattern),
        ),
        (Kind::String, "uuid", Value::Bool(true)) => {
            ("validate::is_uuid(this)".into(), "must be a UUID".into())
        }
        (Kind::Enum(enum_type), "defined_only", Value::Bool(true)) => (
            format!(
                "matches!(this, {})",
                alternatives(enum_type.values().map(|value| value.number()))
            ),
            format!("must be a value of {}", enum_type.name()),
        ),
        (Kind::Enum(enum_type), "not_in", Value::List(numbers)) => (
            format!("!matches!(this, {})", alternatives(numbers.iter().filter_map(Value::as_i32))),
            format!("must not be {}", value_names(enum_type, numbers)),
        ),
        _ => return Ok(None),
    };
    Ok(Some(Check { condition, description }))
}

/// The pattern of names and descriptions. It excludes invisible characters and characters that
/// change the direction of text, except for the joiners that some scripts and emoji need. White
/// space and joiners are not allowed at the ends.
const PRINTABLE_LINE: &str = "^(?:[^\\p{Cc}\\p{Cf}\\p{Co}\\p{Zl}\\p{Zp}\u{115F}\u{1160}\u{2800}\u{3164}\u{FFA0}\\p{Zs}\\p{M}](?:(?:[^\\p{Cc}\\p{Cf}\\p{Co}\\p{Zl}\\p{Zp}\u{115F}\u{1160}\u{2800}\u{3164}\u{FFA0}]|[\u{200C}\u{200D}])*[^\\p{Cc}\\p{Cf}\\p{Co}\\p{Zl}\\p{Zp}\u{115F}\u{1160}\u{2800}\u{3164}\u{FFA0}\\p{Zs}])?)?$";

/// The pattern of emails. The operations that store an email have a stricter check
/// (`src/email.rs`). This pattern is less strict, so that emails that were stored before that check
/// stay usable. The rule `string.email` of protovalidate is not used, because it refuses
/// international addresses.
const EMAIL: &str = r"^[^@\p{Z}\p{Cc}]+@[^@\p{Z}\p{Cc}]+$";

/// Describes a pattern: patterns with a meaning in words, any other pattern by the pattern itself.
fn describe_pattern(pattern: &str) -> String {
    match pattern {
        EMAIL => "must be an email address".into(),
        PRINTABLE_LINE => {
            "must be printable text on one line, without white space at its ends".into()
        }
        _ => format!("must match {pattern}"),
    }
}

/// The check that Postgres can store a text.
pub fn storable_check() -> Check {
    Check {
        condition: "!this.contains('\\0')".into(),
        description: "must not contain the character U+0000".into(),
    }
}

/// The check of a number's range. Both bounds are one check, because protovalidate reports one
/// violation for both.
pub fn range_check(bounds: &DynamicMessage, path: &str) -> Result<Option<Check>, String> {
    let set = set_rules(bounds)?;
    let bound = |names: [&str; 2]| set.iter().find(|(name, _)| names.contains(&name.as_str()));
    let (lower, upper) = (bound(["gt", "gte"]), bound(["lt", "lte"]));
    if let (Some((_, lower)), Some((_, upper))) = (lower, upper)
        && !is_in_order(lower, upper)
    {
        return Err(format!("{path}: an upper bound below the lower bound isn't supported"));
    }
    // Lower bounds have higher field numbers than upper bounds. The reverse order puts them first
    // in the description.
    let mut checks = Vec::new();
    for (name, value) in set.iter().rev() {
        let (operator, words) = match name.as_str() {
            "gt" => (">", "more than"),
            "gte" => (">=", "at least"),
            "lt" => ("<", "less than"),
            "lte" => ("<=", "at most"),
            _ => return Err(unsupported(&format!("{path}.{name}"))),
        };
        let number = literal(value).ok_or_else(|| unsupported(&format!("{path}.{name}")))?;
        checks.push((format!("*this {operator} {number}"), format!("{words} {number}")));
    }
    let (conditions, words): (Vec<_>, Vec<_>) = checks.into_iter().unzip();
    Ok((!words.is_empty()).then(|| Check {
        condition: conditions.join(" && "),
        description: format!("must be {}", words.join(" and ")),
    }))
}

impl Patterns {
    /// Adds `pattern` to the list, unless the list has it, and returns its index in the list.
    /// Returns an error for a pattern that can't be used.
    fn add(&mut self, pattern: &str) -> Result<usize, String> {
        regex::Regex::new(pattern).map_err(|error| error.to_string())?;
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            if letter == '\\' && letters.next().is_some_and(|class| "dDwWsSbB".contains(class)) {
                return Err(
                    "\\d, \\w, \\s and \\b match Unicode here but ASCII in protovalidate; \
                            write the characters out"
                        .into(),
                );
            }
        }
        let known_index = self.0.iter().position(|known| known == pattern);
        Ok(known_index.unwrap_or_else(|| {
            self.0.push(pattern.to_owned());
            self.0.len() - 1
        }))
    }
}

/// Whether a lower bound does not exceed an upper bound. Both must have the same type.
fn is_in_order(lower: &Value, upper: &Value) -> bool {
    match (lower, upper) {
        (Value::I32(lower), Value::I32(upper)) => lower <= upper,
        (Value::I64(lower), Value::I64(upper)) => lower <= upper,
        (Value::U32(lower), Value::U32(upper)) => lower <= upper,
        (Value::F64(lower), Value::F64(upper)) => lower <= upper,
        _ => false,
    }
}

/// A number as a literal in Rust code; `None` for a value of another kind.
fn literal(value: &Value) -> Option<String> {
    match value {
        Value::I32(number) => Some(number.to_string()),
        Value::I64(number) => Some(number.to_string()),
        Value::U32(number) => Some(number.to_string()),
        Value::F64(number) if number.is_finite() => Some(format!("{number:?}")),
        _ => None,
    }
}

/// A pattern in Rust code that matches these numbers.
fn alternatives(numbers: impl Iterator<Item = i32>) -> String {
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" | ")
}

fn value_names(enum_type: &EnumDescriptor, numbers: &[Value]) -> String {
    let name = |number| {
        enum_type
            .get_value(number)
            .map_or_else(|| number.to_string(), |value| value.name().to_owned())
    };
    numbers.iter().filter_map(Value::as_i32).map(name).collect::<Vec<_>>().join(" or ")
}

/// Describes a lower bound on a count.
pub fn at_least(count: u64, unit: &str) -> String {
    match count {
        1 => "must not be empty".into(),
        _ => format!("must have at least {count} {unit}s"),
    }
}

/// Describes an upper bound on a count.
pub fn at_most(count: u64, unit: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("must have at most {count} {unit}{plural}")
}
