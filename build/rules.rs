//! Reads the field rules, which are annotations of protovalidate. An unknown rule is an error,
//! because a rule in the proto that the server does not enforce would be a security hole.

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, OneofDescriptor, ReflectMessage as _, Value,
};

use crate::checks::{self, Check, Patterns};

/// `buf.validate.Ignore.IGNORE_IF_ZERO_VALUE`.
const IGNORE_IF_ZERO_VALUE: i32 = 1;

/// The rules of a field, or of the items of a repeated field.
#[derive(Default)]
pub struct Rules {
    pub required: bool,
    pub ignore_if_zero: bool,
    pub checks: Vec<Check>,
    pub items: Option<Box<Rules>>,
}

/// Reads the rules of a field. A text field with rules gets one more check, without an annotation:
/// Postgres must be able to store it. Passwords are excluded, because they are hashed and never
/// stored.
pub fn read_field_rules(field: &FieldDescriptor, patterns: &mut Patterns) -> Result<Rules, String> {
    match annotation(&field.options(), "buf.validate.field")? {
        Some(_) if field.is_map() => Err("rules on a map aren't supported".into()),
        Some(rules) => {
            let mut rules = read_rules(&rules, field, field.is_list(), "", patterns)?;
            if field.kind() == Kind::String && !field.name().ends_with("password") {
                let text_checks = if field.is_list() {
                    &mut rules.items.get_or_insert_default().checks
                } else {
                    &mut rules.checks
                };
                text_checks.push(checks::storable_check());
            }
            Ok(rules)
        }
        None => Ok(Rules::default()),
    }
}

/// Whether one field of a oneof must be set.
pub fn is_oneof_required(oneof: &OneofDescriptor) -> Result<bool, String> {
    let Some(rules) = annotation(&oneof.options(), "buf.validate.oneof")? else { return Ok(false) };
    let mut required = false;
    for (name, value) in set_rules(&rules)? {
        match (name.as_str(), value) {
            ("required", Value::Bool(true)) => required = true,
            (name, _) => return Err(unsupported(name)),
        }
    }
    Ok(required)
}

/// Returns an error if these options have rules. They are options of an element for which rules are
/// not supported.
pub fn ensure_no_rules(options: &DynamicMessage) -> Result<(), String> {
    // No annotation has the empty name, so every annotation of protovalidate is an error.
    annotation(options, "").map(drop)
}

/// The annotation with the name `expected`, if these options have it. Any other annotation of
/// protovalidate is an error.
fn annotation(options: &DynamicMessage, expected: &str) -> Result<Option<DynamicMessage>, String> {
    let mut annotation = None;
    for (extension, value) in options.extensions() {
        match value.as_message() {
            Some(message) if extension.full_name() == expected => {
                annotation = Some(message.clone());
            }
            _ if extension.full_name().starts_with("buf.validate.") => {
                return Err(unsupported(extension.full_name()));
            }
            _ => {}
        }
    }
    Ok(annotation)
}

/// The names and values of the rules that are set in a message of rules. A rule that is `false`
/// counts as not set.
pub fn set_rules(rules: &DynamicMessage) -> Result<Vec<(String, &Value)>, String> {
    if let Some((extension, _)) = rules.extensions().next() {
        return Err(unsupported(extension.full_name()));
    }
    if let Some(field) = rules.unknown_fields().next() {
        return Err(unsupported(&format!(
            "{} #{}",
            rules.descriptor().full_name(),
            field.number()
        )));
    }
    Ok(rules
        .fields()
        .filter(|(_, value)| **value != Value::Bool(false))
        .map(|(rule, value)| (rule.name().to_owned(), value))
        .collect())
}

/// Reads a message of rules: the rules of a field, or, with the prefix `repeated.items.`, the rules
/// of the items of a list. `is_list` is false for items.
fn read_rules(
    rules: &DynamicMessage,
    field: &FieldDescriptor,
    is_list: bool,
    prefix: &str,
    patterns: &mut Patterns,
) -> Result<Rules, String> {
    let kind = field.kind();
    let mut result = Rules::default();
    for (name, value) in set_rules(rules)? {
        let path = format!("{prefix}{name}");
        match (name.as_str(), value) {
            ("required", Value::Bool(true)) if prefix.is_empty() => result.required = true,
            // 0 is `IGNORE_UNSPECIFIED`.
            ("ignore", Value::EnumNumber(0)) => {}
            ("ignore", Value::EnumNumber(IGNORE_IF_ZERO_VALUE)) => {
                if field.supports_presence() || (!is_list && kind.as_message().is_some()) {
                    return Err("ignore = IGNORE_IF_ZERO_VALUE has no effect on a field that \
                                tracks presence"
                        .into());
                }
                result.ignore_if_zero = true;
            }
            ("repeated", Value::Message(list)) if is_list => {
                read_list(list, field, &mut result, patterns)?;
            }
            ("int32" | "int64" | "uint32" | "double", Value::Message(bounds))
                if !is_list && name == rules_name(&kind) =>
            {
                result.checks.extend(checks::range_check(bounds, &path)?);
            }
            (_, Value::Message(rules_of_kind)) if !is_list && name == rules_name(&kind) => {
                for (rule, value) in set_rules(rules_of_kind)? {
                    let path = format!("{path}.{rule}");
                    let check = checks::rule_check(&kind, &rule, value, patterns)
                        .map_err(|error| format!("{path}: {error}"))?;
                    result.checks.push(check.ok_or_else(|| unsupported(&path))?);
                }
            }
            _ => return Err(unsupported(&path)),
        }
    }
    Ok(result)
}

/// Adds the rules of a list, and the rules of its items, to `rules`.
fn read_list(
    list: &DynamicMessage,
    field: &FieldDescriptor,
    rules: &mut Rules,
    patterns: &mut Patterns,
) -> Result<(), String> {
    for (name, value) in set_rules(list)? {
        let (condition, description) = match (name.as_str(), value) {
            ("min_items", Value::U64(n)) => {
                (format!("this.len() >= {n}"), checks::at_least(*n, "item"))
            }
            ("max_items", Value::U64(n)) => {
                (format!("this.len() <= {n}"), checks::at_most(*n, "item"))
            }
            ("items", Value::Message(items)) => {
                let items = read_rules(items, field, false, "repeated.items.", patterns)?;
                rules.items = Some(Box::new(items));
                continue;
            }
            _ => return Err(unsupported(&format!("repeated.{name}"))),
        };
        rules.checks.push(Check { condition, description });
    }
    Ok(())
}

/// The name of the field of `FieldRules` that has the rules of this kind.
fn rules_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Double => "double",
        Kind::Enum(_) => "enum",
        _ => "",
    }
}

/// The error message for an unsupported rule.
pub fn unsupported(rule: &str) -> String {
    format!("rule `{rule}` isn't supported; see build/rules.rs")
}
