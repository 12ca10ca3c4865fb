//! Generates an implementation of `Validate` for each message in the package.
//!
//! In the generated code, `this` is a reference to the value of a field or item, `at` is the path
//! of the value or of its message, and `found` collects the violations.

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::{
    checks::{Check, Patterns},
    names::{self, PACKAGE},
    rules::{self, Rules},
};

/// The validators of all messages, as Rust code. If rules have errors, returns all error messages,
/// one per line.
pub fn validators(pool: &DescriptorPool) -> Result<String, String> {
    let (mut code, mut errors) = (Vec::new(), Vec::new());
    let mut patterns = Patterns::default();
    for message in pool.all_messages() {
        if message.package_name() != PACKAGE || message.is_map_entry() {
            continue;
        }
        match implementation(&message, &mut patterns) {
            Ok(text) => code.push(text),
            Err(error) => errors.push(format!("{}: {error}", message.parent_file().name())),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    for (index, pattern) in patterns.0.iter().enumerate() {
        code.push(format!(
            "static PATTERN_{index}: validate::Pattern = \
             validate::Pattern::new(|| validate::compile({pattern:?}));\n"
        ));
    }
    Ok(code.concat())
}

fn implementation(message: &MessageDescriptor, patterns: &mut Patterns) -> Result<String, String> {
    rules::ensure_no_rules(&message.options())
        .map_err(|error| format!("message {}: {error}", message.full_name()))?;
    let mut body = Vec::new();
    for field in message.fields() {
        let code = field_code(&field, patterns)
            .map_err(|error| format!("field {}: {error}", field.full_name()))?;
        body.push(code);
    }
    for oneof in message.oneofs() {
        let is_required = rules::is_oneof_required(&oneof)
            .map_err(|error| format!("oneof {}: {error}", oneof.full_name()))?;
        if is_required {
            let names: Vec<_> = oneof.fields().map(|field| field.name().to_owned()).collect();
            body.push(format!(
                "found.ensure(&at.field({:?}), self.{}.is_some(), {:?});\n",
                oneof.name(),
                names::member(oneof.name()),
                format!("must have one of {} set", names.join(", "))
            ));
        }
    }
    Ok(format!(
        "impl Validate for {} {{\n\
         fn validate(&self, at: &Path<'_>, found: &mut Violations) {{\n{}}}\n}}\n",
        names::message(message),
        body.concat()
    ))
}

/// The code that validates a field; empty when there is nothing to validate.
fn field_code(field: &FieldDescriptor, patterns: &mut Patterns) -> Result<String, String> {
    let rules = rules::read_field_rules(field, patterns)?;
    if field.is_map() {
        return ensure_no_message_values(field).map(|()| String::new());
    }
    let mut body = checks_code(&rules.checks);
    if field.is_list() {
        body.push_str(&items_code(field, rules.items.as_deref())?);
    } else {
        body.push_str(nested_validation_code(&field.kind())?);
    }
    if body.is_empty() && !rules.required {
        return Ok(body);
    }
    let else_branch =
        if rules.required { "else { found.ensure(at, false, \"is required\"); }" } else { "" };
    let body = match condition(field, &rules) {
        Some(condition) => format!("if {condition} {{\n{body}}} {else_branch}\n"),
        None => body,
    };
    // With presence, the condition binds `this`.
    let this_binding = if field.supports_presence() {
        String::new()
    } else {
        format!("let this = &self.{};\n", names::member(field.name()))
    };
    Ok(format!("{{\nlet at = &at.field({:?});\n{this_binding}{body}}}\n", field.name()))
}

/// The condition under which a field's rules apply; `None` if they always apply. For a field that
/// tracks presence: the field is set. For any other field that is required or whose rules ignore
/// the zero value: the value is not zero.
fn condition(field: &FieldDescriptor, rules: &Rules) -> Option<String> {
    match field.containing_oneof() {
        Some(oneof) if !oneof.is_synthetic() => Some(format!(
            "let Some({}(this)) = &self.{}",
            names::variant(&oneof, field),
            names::member(oneof.name())
        )),
        _ if field.supports_presence() => {
            Some(format!("let Some(this) = &self.{}", names::member(field.name())))
        }
        _ if !rules.required && !rules.ignore_if_zero => None,
        _ if field.is_list() => Some("!this.is_empty()".into()),
        _ => Some(non_zero_condition(&field.kind()).into()),
    }
}

/// The code that validates the items of a list; empty when there is nothing to validate.
fn items_code(field: &FieldDescriptor, rules: Option<&Rules>) -> Result<String, String> {
    let mut body = rules.map(|rules| checks_code(&rules.checks)).unwrap_or_default();
    body.push_str(nested_validation_code(&field.kind())?);
    if body.is_empty() {
        return Ok(body);
    }
    if rules.is_some_and(|rules| rules.ignore_if_zero) {
        body = format!("if {} {{\n{body}}}\n", non_zero_condition(&field.kind()));
    }
    Ok(format!(
        "for (index, this) in this.iter().enumerate() {{\nlet at = &at.item(index);\n{body}}}\n"
    ))
}

fn checks_code(checks: &[Check]) -> String {
    let code = |check: &Check| {
        format!("found.ensure(at, {}, {:?});\n", check.condition, check.description)
    };
    checks.iter().map(code).collect::<Vec<_>>().concat()
}

/// The code that validates a nested message; empty for other kinds and for well-known types, which
/// have no rules.
fn nested_validation_code(kind: &Kind) -> Result<&'static str, String> {
    match kind {
        Kind::Message(message) if message.package_name() == PACKAGE => {
            Ok("this.validate(at, found);\n")
        }
        Kind::Message(message) if message.package_name() != "google.protobuf" => {
            Err(format!("messages of package {} aren't supported", message.package_name()))
        }
        _ => Ok(""),
    }
}

/// Returns an error if the values of a map are messages, because the generated code does not
/// validate them.
fn ensure_no_message_values(map: &FieldDescriptor) -> Result<(), String> {
    let entry = map.kind();
    let value = entry.as_message().map(|entry| entry.map_entry_value_field().kind());
    match value.as_ref().map(nested_validation_code).transpose()? {
        Some("") | None => Ok(()),
        Some(_) => Err("maps of messages aren't supported".into()),
    }
}

/// The condition that `this` is not the zero value of its type.
fn non_zero_condition(kind: &Kind) -> &'static str {
    match kind {
        Kind::String | Kind::Bytes => "!this.is_empty()",
        Kind::Bool => "*this",
        Kind::Float | Kind::Double => "*this != 0.0",
        _ => "*this != 0",
    }
}
