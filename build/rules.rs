//! Reads the annotations of protovalidate. An unknown rule is an error, because a rule that is
//! written in the proto but not enforced would be a security hole.

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
pub fn of_field(field: &FieldDescriptor, patterns: &mut Patterns) -> Result<Rules, String> {
    match extension(&field.options(), "buf.validate.field")? {
        Some(_) if field.is_map() => Err("rules on a map aren't supported".into()),
        Some(rules) => {
            let mut rules = read(&rules, field, field.is_list(), "", patterns)?;
            if field.kind() == Kind::String && !field.name().ends_with("password") {
                let of_text = if field.is_list() {
                    &mut rules.items.get_or_insert_default().checks
                } else {
                    &mut rules.checks
                };
                of_text.push(checks::storable());
            }
            Ok(rules)
        }
        None => Ok(Rules::default()),
    }
}

/// Whether one field of a oneof must be set.
pub fn oneof_required(oneof: &OneofDescriptor) -> Result<bool, String> {
    let Some(rules) = extension(&oneof.options(), "buf.validate.oneof")? else { return Ok(false) };
    let mut required = false;
    for (name, value) in set_rules(&rules)? {
        match (name.as_str(), value) {
            ("required", Value::Bool(true)) => required = true,
            (name, _) => return Err(unsupported(name)),
        }
    }
    Ok(required)
}

/// Returns an error if options that may not have rules have any.
pub fn none(options: &DynamicMessage) -> Result<(), String> {
    extension(options, "").map(drop)
}

/// The annotation `known` of these options. Any other annotation of protovalidate is an error.
fn extension(options: &DynamicMessage, known: &str) -> Result<Option<DynamicMessage>, String> {
    let mut found = None;
    for (extension, value) in options.extensions() {
        match value.as_message() {
            Some(message) if extension.full_name() == known => found = Some(message.clone()),
            _ if extension.full_name().starts_with("buf.validate.") => {
                return Err(unsupported(extension.full_name()));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The rules that are set in a message of rules. A rule that is `false` counts as not set.
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

fn read(
    rules: &DynamicMessage,
    field: &FieldDescriptor,
    is_list: bool,
    prefix: &str,
    patterns: &mut Patterns,
) -> Result<Rules, String> {
    let kind = field.kind();
    let mut read_rules = Rules::default();
    for (name, value) in set_rules(rules)? {
        let path = format!("{prefix}{name}");
        match (name.as_str(), value) {
            ("required", Value::Bool(true)) if prefix.is_empty() => read_rules.required = true,
            ("ignore", Value::EnumNumber(0)) => {}
            ("ignore", Value::EnumNumber(IGNORE_IF_ZERO_VALUE)) => {
                if field.supports_presence() || (!is_list && kind.as_message().is_some()) {
                    return Err("ignore = IGNORE_IF_ZERO_VALUE has no effect on a field that \
                                tracks presence"
                        .into());
                }
                read_rules.ignore_if_zero = true;
            }
            ("repeated", Value::Message(list)) if is_list => {
                read_list(list, field, &mut read_rules, patterns)?;
            }
            ("int32" | "int64" | "uint32" | "double", Value::Message(bounds))
                if !is_list && name == rules_of(&kind) =>
            {
                read_rules.checks.extend(checks::range(bounds, &path)?);
            }
            (_, Value::Message(of_kind)) if !is_list && name == rules_of(&kind) => {
                for (rule, value) in set_rules(of_kind)? {
                    let path = format!("{path}.{rule}");
                    let check = checks::of_rule(&kind, &rule, value, patterns)
                        .map_err(|error| format!("{path}: {error}"))?;
                    read_rules.checks.push(check.ok_or_else(|| unsupported(&path))?);
                }
            }
            _ => return Err(unsupported(&path)),
        }
    }
    Ok(read_rules)
}

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
                let items = read(items, field, false, "repeated.items.", patterns)?;
                rules.items = Some(Box::new(items));
                continue;
            }
            _ => return Err(unsupported(&format!("repeated.{name}"))),
        };
        rules.checks.push(Check { condition, description });
    }
    Ok(())
}

/// The field of `FieldRules` with the rules of a kind.
fn rules_of(kind: &Kind) -> &'static str {
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
