//! Generates `Debug` for messages with secret fields. The proto marks these fields with
//! `debug_redact`.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, OneofDescriptor, Value};

use crate::names::{self, PACKAGE};

/// The messages that get a generated `Debug`.
pub fn redacted_messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    let package_messages = pool.all_messages().filter(|message| message.package_name() == PACKAGE);
    package_messages.filter(|message| message.fields().any(|field| is_redacted(&field))).collect()
}

/// The `Debug` implementations of these messages and their oneofs.
pub fn debug_impls(pool: &DescriptorPool) -> String {
    redacted_messages(pool).iter().map(debug_of_message).collect()
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let value = options.get_field_by_name("debug_redact");
    value.is_some_and(|value| *value == Value::Bool(true))
}

fn debug_of_message(message: &MessageDescriptor) -> String {
    let mut body = String::new();
    // A synthetic oneof has only one optional field, which is shown like a field without a oneof.
    let real_oneof =
        |field: &FieldDescriptor| field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    for field in message.fields().filter(|field| real_oneof(field).is_none()) {
        let (name, member) = (field.name(), names::member(field.name()));
        let value =
            if is_redacted(&field) { "\"[redacted]\"".into() } else { format!("self.{member}") };
        write!(body, ".field({name:?}, &{value})").ok();
    }
    let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
    for oneof in &oneofs {
        let (name, member) = (oneof.name(), names::member(oneof.name()));
        write!(body, ".field({name:?}, &self.{member})").ok();
    }
    let debug_of_oneofs: String = oneofs.iter().map(debug_of_oneof).collect();
    implementation(
        &names::message(message),
        &format!("f.debug_struct({:?}){body}.finish()", message.name()),
    ) + &debug_of_oneofs
}

/// The generated `Debug` of a oneof shows only which field is set.
fn debug_of_oneof(oneof: &OneofDescriptor) -> String {
    let mut arms = String::new();
    for field in oneof.fields() {
        writeln!(arms, "{}(_) => {:?},", names::variant(oneof, &field), field.name()).ok();
    }
    implementation(&names::oneof(oneof), &format!("f.write_str(match self {{\n{arms}}})"))
}

fn implementation(name: &str, body: &str) -> String {
    format!(
        "impl std::fmt::Debug for {name} {{\n\
         fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n{body}\n}}\n}}\n"
    )
}
