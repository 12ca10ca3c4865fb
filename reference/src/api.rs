//! Generates the page of the API.

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
    let mut services: Vec<_> = pool.services().filter(|s| s.package_name() == PACKAGE).collect();
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
    let mut enums: Vec<_> = pool.all_enums().filter(|of| of.package_name() == PACKAGE).collect();
    enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    enums.retain(|of| !["Access", "Limit", "Power"].contains(&of.name()));
    for of in &enums {
        write_enum(&mut page, of);
    }
    Ok(page)
}

fn write_service(
    page: &mut String,
    service: &ServiceDescriptor,
    policies: &Policies,
) -> anyhow::Result<()> {
    let about = comments::before(&service.parent_file(), service.path());
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
    let about = comments::before(&method.parent_file(), method.path());
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
    let about = comments::before(&file, message.path());
    write!(page, "\n## {}\n\n{about}\n", message.name())?;
    if message.fields().len() == 0 {
        return Ok(());
    }
    page.push_str("\n| field | type | rules | meaning |\n| --- | --- | --- | --- |\n");
    let mut fields: Vec<_> = message.fields().collect();
    // In the order of the proto file.
    fields.sort_by_key(|field| field.path().to_vec());
    for field in fields {
        let meaning = comments::in_cell(&file, field.path());
        let rules = rules_of(&field)?;
        writeln!(page, "| `{}` | {} | {rules} | {meaning} |", field.name(), type_of(&field))?;
    }
    Ok(())
}

fn write_enum(page: &mut String, of: &EnumDescriptor) {
    let file = of.parent_file();
    let about = comments::before(&file, of.path());
    write!(page, "\n## {}\n\n{about}\n\n| value | meaning |\n| --- | --- |\n", of.name()).ok();
    let mut values: Vec<_> = of.values().collect();
    values.sort_by_key(prost_reflect::EnumValueDescriptor::number);
    for value in values {
        let meaning = comments::in_cell(&file, value.path());
        writeln!(page, "| `{}` | {meaning} |", value.name()).ok();
    }
}

/// Describes the rules of a field, in the words of the server's error messages.
fn rules_of(field: &FieldDescriptor) -> anyhow::Result<String> {
    let rules = rules::of_field(field, &mut Patterns::default())
        .map_err(|error| anyhow::anyhow!("{}: {error}", field.full_name()))?;
    let mut said = described(&rules);
    if rules.required {
        said.insert(0, "must be set".into());
    }
    if let Some(items) = &rules.items {
        said.extend(described(items).into_iter().map(|rule| format!("each {rule}")));
    }
    if rules.ignore_if_zero && !said.is_empty() {
        said.push("unless empty".into());
    }
    if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        said.push(format!("one of `{}`", oneof.name()));
    }
    Ok(comments::cell(&said.join("; ")))
}

fn described(rules: &Rules) -> Vec<String> {
    // The introduction states the U+0000 rule once for all fields.
    let all = rules.checks.iter().map(|check| check.description.clone());
    all.filter(|text| !text.contains("U+0000")).collect()
}

fn type_of(field: &FieldDescriptor) -> String {
    let one = match field.kind() {
        Kind::Message(message) if message.package_name() == PACKAGE => link(message.name()),
        Kind::Message(message) => format!("`{}`", message.full_name()),
        Kind::Enum(of) => link(of.name()),
        kind => format!("{kind:?}").to_lowercase(),
    };
    match (field.is_map(), field.is_list()) {
        (true, _) => "map".to_owned(),
        (_, true) => format!("list of {one}"),
        _ => one,
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}
