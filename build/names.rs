//! The Rust names that prost gives to messages, fields and oneofs.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use prost_reflect::{FieldDescriptor, MessageDescriptor, OneofDescriptor};

/// The package of this API.
pub const PACKAGE: &str = "tenantry.v1";

/// Keywords that prost writes as raw identifiers.
const KEYWORDS: [&str; 44] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn",
    "else", "enum", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "static",
    "struct", "trait", "true", "try", "type", "typeof", "unsafe", "use", "virtual", "while",
];

/// The path of the struct of a message in the package.
pub fn message(message: &MessageDescriptor) -> String {
    format!("{}{}", module_of(message.parent_message()), message.name().to_upper_camel_case())
}

/// The name of the struct field of a field or oneof.
pub fn member(name: &str) -> String {
    let name = name.to_snake_case();
    if KEYWORDS.contains(&name.as_str()) { format!("r#{name}") } else { name }
}

/// The path of the enum of a oneof.
pub fn oneof(oneof: &OneofDescriptor) -> String {
    format!(
        "{}{}",
        module_of(Some(oneof.parent_message().clone())),
        oneof.name().to_upper_camel_case()
    )
}

/// The path of the enum variant of a field in a oneof.
pub fn variant(parent: &OneofDescriptor, field: &FieldDescriptor) -> String {
    format!("{}::{}", oneof(parent), field.name().to_upper_camel_case())
}

/// The module path of types that are nested in a message, as a prefix.
fn module_of(parent: Option<MessageDescriptor>) -> String {
    parent.map_or_else(
        || "v1::".into(),
        |parent| format!("{}{}::", module_of(parent.parent_message()), member(parent.name())),
    )
}
