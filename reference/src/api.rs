//! Generates the reference page of the API.

use std::{fmt::Write as _, path::Path};

use anyhow::Context;
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use tenantry::gate::Policies;

use crate::{
    checks::Patterns,
    comments,
    names::PACKAGE,
    rules::{self, Rules},
    sources,
};

const INTRODUCTION: &str = "# API reference

Generated from the comments, policies and field rules in
[`proto/tenantry/v1`](../../proto/tenantry/v1). [api.md](../api.md) describes the rules for all calls.
A message that breaks a rule is INVALID_ARGUMENT, with a `BadRequest` that lists all violations. A
text field with rules, except for passwords, must not contain U+0000.
";

pub fn page(root: &Path) -> anyhow::Result<String> {
    let compiler = sources::compile(root).map_err(anyhow::Error::msg)?;
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())?;
    let policies = Policies::load()?;
    let mut page = INTRODUCTION.to_owned();
    let mut services: Vec<_> =
        pool.services().filter(|service| service.package_name() == PACKAGE).collect();
    services.sort_by(|a, b| a.name().cmp(b.name()));
    for service in &services {
        write_service(&mut page, service, &policies)?;
    }
    page.push_str("\n# Messages\n");
    let mut messages: Vec<_> = pool
        .all_messages()
        .filter(|message| message.package_name() == PACKAGE && !message.is_map_entry())
        .filter(|message| message.name() != "Policy")
        .collect();
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    for message in &messages {
        write_message(&mut page, message)?;
    }
    page.push_str("\n# Enums\n");
    let mut enums: Vec<_> =
        pool.all_enums().filter(|item| item.package_name() == PACKAGE).collect();
    enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    enums.retain(|item| !["Access", "Limit", "Power"].contains(&item.name()));
    for descriptor in &enums {
        write_enum(&mut page, descriptor);
    }
    Ok(page)
}

fn write_service(
    page: &mut String,
    service: &ServiceDescriptor,
    policies: &Policies,
) -> anyhow::Result<()> {
    let about = comments::comment_before(&service.parent_file(), service.path());
    write!(page, "\n## {}\n\n{about}\n", service.name())?;
    for method in service.methods() {
        write_method(page, &method, policies)?;
    }
    Ok(())
}

fn write_method(
    page: &mut String,
    method: &MethodDescriptor,
    policies: &Policies,
) -> anyhow::Result<()> {
    let about = comments::comment_before(&method.parent_file(), method.path());
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let policy = policies.method(&path).with_context(|| format!("{path} has no policy"))?;
    let (input, output) = (method.input(), method.output());
    let stream = if method.is_server_streaming() { "a stream of " } else { "" };
    write!(
        page,
        "\n### {}\n\n{about}\n\n- Who: {policy}\n- Takes {}, returns {stream}{}\n",
        method.name(),
        link(input.name()),
        link(output.name()),
    )?;
    Ok(())
}

fn write_message(page: &mut String, message: &MessageDescriptor) -> anyhow::Result<()> {
    let file = message.parent_file();
    let about = comments::comment_before(&file, message.path());
    write!(page, "\n## {}\n\n{about}\n", message.name())?;
    if message.fields().len() == 0 {
        return Ok(());
    }
    page.push_str("\n| field | type | rules | meaning |\n| --- | --- | --- | --- |\n");
    let mut fields: Vec<_> = message.fields().collect();
    // The fields are in the order of the proto file.
    fields.sort_by_key(|field| field.path().to_vec());
    for field in fields {
        let meaning = comments::comment_for_cell(&file, field.path());
        let rules = rules_of(&field)?;
        writeln!(page, "| `{}` | {} | {rules} | {meaning} |", field.name(), type_of(&field))?;
    }
    Ok(())
}

fn write_enum(page: &mut String, descriptor: &EnumDescriptor) {
    let file = descriptor.parent_file();
    let about = comments::comment_before(&file, descriptor.path());
    write!(page, "\n## {}\n\n{about}\n\n| value | meaning |\n| --- | --- |\n", descriptor.name())
        .ok();
    let mut values: Vec<_> = descriptor.values().collect();
    values.sort_by_key(prost_reflect::EnumValueDescriptor::number);
    for value in values {
        let meaning = comments::comment_for_cell(&file, value.path());
        writeln!(page, "| `{}` | {meaning} |", value.name()).ok();
    }
}

/// Describes the rules of a field, in the words of the server's error messages.
fn rules_of(field: &FieldDescriptor) -> anyhow::Result<String> {
    let rules = rules::read_field_rules(field, &mut Patterns::default())
        .map_err(|error| anyhow::anyhow!("{}: {error}", field.full_name()))?;
    let mut descriptions = check_descriptions(&rules);
    if rules.required {
        descriptions.insert(0, "must be set".into());
    }
    if let Some(items) = &rules.items {
        descriptions
            .extend(check_descriptions(items).into_iter().map(|rule| format!("each {rule}")));
    }
    if rules.ignore_if_zero && !descriptions.is_empty() {
        descriptions.push("unless empty".into());
    }
    if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        descriptions.push(format!("one of `{}`", oneof.name()));
    }
    Ok(comments::escape_cell(&descriptions.join("; ")))
}

fn check_descriptions(rules: &Rules) -> Vec<String> {
    // The introduction states the U+0000 rule once for all fields.
    let all = rules.checks.iter().map(|check| check.description.clone());
    all.filter(|text| !text.contains("U+0000")).collect()
}

fn type_of(field: &FieldDescriptor) -> String {
    let item_type = match field.kind() {
        Kind::Message(message) if message.package_name() == PACKAGE => link(message.name()),
        Kind::Message(message) => format!("`{}`", message.full_name()),
        Kind::Enum(descriptor) => link(descriptor.name()),
        kind => format!("{kind:?}").to_lowercase(),
    };
    match (field.is_map(), field.is_list()) {
        (true, _) => "map".to_owned(),
        (_, true) => format!("list of {item_type}"),
        _ => item_type,
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}
