//! What holds for every list.

mod size;
mod tokens;

use prost_reflect::Value;

use crate::harness::{Method, methods};

/// Every list RPC, from the descriptors.
pub fn lists() -> Vec<Method> {
    let has_pages = |method: &Method| method.0.input().get_field_by_name("page_token").is_some();
    methods().into_iter().filter(has_pages).collect()
}

/// A text field of a message.
pub fn text(message: &prost_reflect::DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field).expect("the field");
    value.as_str().expect("a text").to_owned()
}

/// A text as a field's value.
pub fn value(text: &str) -> Value {
    Value::String(text.to_owned())
}
