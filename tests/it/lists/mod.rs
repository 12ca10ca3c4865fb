//! Rules for all lists.

mod size;
mod tokens;

use prost_reflect::Value;

use crate::harness::{Method, methods};

/// All list RPCs, from the descriptors.
pub fn list_methods() -> Vec<Method> {
    let has_pages = |method: &Method| method.0.input().get_field_by_name("page_token").is_some();
    methods().into_iter().filter(has_pages).collect()
}

/// Value of a text field.
pub fn text_field(message: &prost_reflect::DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field).expect("the field");
    value.as_str().expect("a text").to_owned()
}

/// A text as the value of a field.
pub fn text_value(text: &str) -> Value {
    Value::String(text.to_owned())
}
