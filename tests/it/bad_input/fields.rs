//! Fields that violate their rules, and text that could break SQL, logs or terminals.

use std::collections::BTreeSet;

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::callers;
use crate::harness::{
    Client, Ids, Method, PASSWORD, RawReply, TestApp, assert_refused,
    assert_success_or_documented_error,
};

fn text_fields(method: &Method) -> Vec<FieldDescriptor> {
    method.0.input().fields().filter(|field| field.kind() == Kind::String).collect()
}

/// Sets a field to a text, or a repeated field to a list with this text as its only item.
fn set_text(message: &mut DynamicMessage, field: &FieldDescriptor, text: &str) {
    let text = Value::String(text.to_owned());
    let value =
        if field.cardinality() == Cardinality::Repeated { Value::List(vec![text]) } else { text };
    message.set_field(field, value);
}

/// The fields for which a status reports a violation.
fn violated_fields(status: &Status) -> BTreeSet<String> {
    let details = status.get_error_details();
    let request = details.bad_request().expect("a BadRequest");
    request.field_violations.iter().map(|violation| violation.field.clone()).collect()
}

/// Whether a method is a batch, which checks the fields of each item separately.
fn is_batch(method: &Method) -> bool {
    method.0.input().get_field_by_name("items").is_some()
}

#[tokio::test]
async fn overlong_text_is_refused_and_every_field_is_reported() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in callers.iter().filter(|(method, _)| !text_fields(method).is_empty()) {
        let mut message = method.request();
        for field in text_fields(method) {
            set_text(&mut message, &field, &"x".repeat(10_000));
        }
        // Of the members of a oneof, only the last one is still set.
        let expected: BTreeSet<_> = message
            .fields()
            .map(|(field, value)| match value {
                Value::List(_) => format!("{}[0]", field.name()),
                _ => field.name().to_owned(),
            })
            .collect();
        let reply = method.call(client, &message).await;
        assert!(reply.is_err(), "{}", method.path());
        let status = assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
        assert!(violated_fields(&status).is_superset(&expected), "{}: {status:?}", method.path());
    }
    assert_eq!(app.row_counts().await, rows_before);
}

#[tokio::test]
async fn one_reply_reports_all_malformed_ids() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in callers.iter().filter(|(method, _)| !is_batch(method)) {
        let ids: BTreeSet<_> =
            method.id_fields().into_iter().filter(|name| name.ends_with("_id")).collect();
        if ids.is_empty() {
            continue;
        }
        for invalid_id in [
            "x",
            "00000000-0000-0000-0000-00000000000",
            "{00000000-0000-0000-0000-000000000000}",
            "00000000000000000000000000000000",
            "urn:uuid:00000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-00000000000g",
            "00000000-0000-0000-0000-000000000000\n",
            "' or 1=1--",
            "\u{0}",
        ] {
            let mut message = method.sample(&Ids::random());
            for name in &ids {
                message.set_field_by_name(name, Value::String(invalid_id.to_owned()));
            }
            let reply = method.call(client, &message).await;
            assert!(reply.is_err(), "{} accepted {invalid_id}", method.path());
            let status = assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
            assert!(
                violated_fields(&status).iter().map(String::as_str).eq(ids.iter().copied()),
                "{status:?}"
            );
        }
    }
    assert_eq!(app.row_counts().await, rows_before);
}

#[tokio::test]
async fn an_empty_message_is_accepted_or_its_missing_fields_are_reported() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut refusals = 0;
    for (method, client) in callers(&app).await {
        // Some methods end the caller's session, so each method gets its own caller.
        let client = if client.user_id.is_empty() {
            client
        } else {
            let email = format!("{}@acme.test", method.0.name().to_lowercase());
            let user = acme.create_user(&email).await;
            acme.assign(&user, &acme.system_role("org_admin").await).await;
            app.anonymous().login("acme", &email, PASSWORD).await
        };
        let reply = method.call(&client, &method.request()).await;
        let reason = assert_success_or_documented_error(&method.path(), &reply);
        let allowed_reasons = ["", "INVALID_FIELDS", "PERMISSION_MISSING", "TENANT_REQUIRED"];
        assert!(allowed_reasons.contains(&reason.as_str()), "{}: {reason}", method.path());
        if let Err(status) = reply
            && reason == "INVALID_FIELDS"
        {
            assert!(!violated_fields(&status).is_empty());
            refusals += 1;
        }
    }
    assert!(refusals > 10, "{refusals} refusals");
}

/// Text with a meaning for Postgres, for LIKE, for a terminal or for a log.
const SPECIAL_TEXTS: &[&str] = &[
    "\u{0}",
    "a\u{0}b",
    "'; drop table users; --",
    "\\",
    "%",
    "$1",
    // Full-width forms of \, % and _, which NFKC changes into the ASCII characters.
    "\u{ff3c}",
    "\u{ff05}\u{ff3f}",
    "\u{202e}\u{200b}\u{feff}",
    "\u{1b}[31m\r\n",
    "\u{fdfa}",
    "🧑‍🚀",
];

#[tokio::test]
async fn special_text_in_any_field_gets_a_documented_response() {
    let app = TestApp::spawn().await;
    for (method, client) in callers(&app).await {
        for field in text_fields(&method) {
            for text in SPECIAL_TEXTS {
                let mut message = method.sample(&Ids::random());
                set_text(&mut message, &field, text);
                let case = format!("{} {} {text:?}", method.path(), field.name());
                assert_success_or_documented_error(&case, &method.call(&client, &message).await);
            }
        }
    }
}

#[tokio::test]
async fn special_text_in_a_filter_gets_a_documented_response() {
    let app = TestApp::spawn().await;
    for (method, client) in callers(&app).await {
        let Some(field) = method.0.input().get_field_by_name("filter") else { continue };
        for name in ["email", "display_name", "name", "slug", "device_name", "role_name", "state"] {
            for text in SPECIAL_TEXTS {
                let mut message = method.request();
                let text = text.replace('\\', "\\\\");
                set_text(&mut message, &field, &format!("{name} = \"{text}*\""));
                let case = format!("{} {name} {text:?}", method.path());
                assert_success_or_documented_error(&case, &method.call(&client, &message).await);
                set_text(&mut message, &field, &format!("{name} = \"{text}\""));
                assert_success_or_documented_error(&case, &method.call(&client, &message).await);
            }
        }
    }
}

#[tokio::test]
async fn special_text_in_a_struct_gets_a_documented_response() {
    let app = TestApp::spawn().await;
    let mut calls = 0;
    for (method, client) in callers(&app).await {
        for field in method.0.input().fields() {
            let Kind::Message(struct_type) = field.kind() else { continue };
            if struct_type.full_name() != "google.protobuf.Struct" {
                continue;
            }
            for text in SPECIAL_TEXTS {
                let value = prost_types::Value::from((*text).to_owned());
                for (key, value) in [("a".to_owned(), value.clone()), ((*text).to_owned(), value)] {
                    let sent = prost_types::Struct { fields: [(key, value)].into() };
                    let reply =
                        call_with_struct(&method, &client, &field, struct_type.clone(), &sent)
                            .await;
                    assert_success_or_documented_error(
                        &format!("{} {} {text:?}", method.path(), field.name()),
                        &reply,
                    );
                    calls += 1;
                }
            }
        }
    }
    assert!(calls > 50, "{calls} calls");
}

async fn call_with_struct(
    method: &Method,
    client: &Client,
    field: &FieldDescriptor,
    struct_type: prost_reflect::MessageDescriptor,
    sent: &prost_types::Struct,
) -> RawReply {
    let mut inner = DynamicMessage::new(struct_type);
    inner.transcode_from(sent).expect("a struct");
    let mut message = method.sample(&Ids::random());
    message.set_field(field, Value::Message(inner));
    method.call(client, &message).await
}

/// Texts that are not printable on one line, or that have invisible or unassigned characters.
const INVALID_NAMES: &[&str] = &[
    " a",
    "a ",
    "\u{a0}",
    "a\u{3000}",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "a\u{b}b",
    "a\u{85}b",
    "a\u{2028}b",
    "a\u{2029}",
    "a\u{202e}b",
    "a\u{2066}b\u{2069}",
    "\u{200b}",
    "a\u{200f}b",
    "a\u{feff}",
    "a\u{ad}b",
    "\u{200d}",
    "a\u{200d}",
    "\u{3164}",
    "a\u{2800}b",
    "\u{301}a",
    "a\u{e000}",
    "a\u{e0041}",
    "a\u{7f}",
];

/// Valid names of people and things.
const VALID_NAMES: &[&str] = &[
    "Ada",
    "O'Neill-Łukasiewicz, Jr.",
    "e\u{301}te\u{301}",
    "山田\u{3000}太郎",
    "نام\u{200c}خانوادگی",
    "क\u{94d}\u{200d}ष",
    "👩\u{200d}🚀 & 👨\u{200d}👩\u{200d}👧\u{fe0f}",
    "❤\u{fe0f}",
    "<b>\"%_\\$1</b>",
];

/// N16: names are printable text on one line. A text field is a name unless `other_fields` has it.
#[tokio::test]
async fn every_name_is_printable_text_on_one_line() {
    let other_fields = [
        "email",
        "new_email",
        "password",
        "new_password",
        "current_password",
        "password_hash",
        "token",
        "access_token",
        "refresh_token",
        "page_token",
        "consistency_token",
        "after_hash",
        "filter",
        "order_by",
        "etag",
        "slug",
        "organization_slug",
        "tenant",
        "permission",
        "permissions",
        "public_key",
        "certificate_name",
        "api_key",
        "client_assertion",
    ];
    let app = TestApp::spawn().await;
    let mut name_fields = std::collections::BTreeSet::new();
    for (method, client) in callers(&app).await {
        for field in text_fields(&method) {
            if field.name().ends_with("_id") || other_fields.contains(&field.name()) {
                continue;
            }
            let case = format!("{}.{}", method.0.name(), field.name());
            for text in INVALID_NAMES {
                let mut message = method.sample(&Ids::random());
                set_text(&mut message, &field, text);
                let reply = method.call(&client, &message).await;
                assert!(reply.is_err(), "{case} accepted {text:?}");
                let status = assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
                assert!(
                    violated_fields(&status).contains(field.name()),
                    "{case} {text:?}: {status:?}"
                );
            }
            // Role names are limited to ASCII.
            for text in VALID_NAMES.iter().filter(|_| !method.0.name().ends_with("Role")) {
                let mut message = method.sample(&Ids::random());
                set_text(&mut message, &field, text);
                if let Err(status) = method.call(&client, &message).await
                    && status.code() == Code::InvalidArgument
                {
                    let details = status.get_error_details();
                    let is_violated = details.bad_request().is_some_and(|request| {
                        request
                            .field_violations
                            .iter()
                            .any(|violation| violation.field == field.name())
                    });
                    assert!(!is_violated, "{case} refused {text:?}: {status:?}");
                }
            }
            name_fields.insert(case);
        }
    }
    let expected = [
        "CreateApiKey.name",
        "CreateRole.name",
        "CreateServiceAccount.description",
        "CreateServiceAccount.name",
        "CreateTenant.name",
        "CreateUser.display_name",
        "Login.device_name",
        "Register.display_name",
        "Register.organization_name",
        "UpdateRole.name",
        "UpdateTenant.name",
        "UpdateUser.display_name",
    ];
    assert!(name_fields.iter().map(String::as_str).eq(expected), "{name_fields:?}");
}

/// Errors may be logged, and requests may contain personal data and secrets.
#[tokio::test]
async fn no_error_repeats_values_of_the_request() {
    let app = TestApp::spawn().await;
    let marker = "c4n4ry-5ecret";
    for (method, client) in callers(&app).await {
        for field in text_fields(&method) {
            for text in [
                marker.to_owned(),
                format!("{marker}\u{1}"),
                format!("{marker}{}", "x".repeat(10_000)),
                format!("{marker}@{marker}.test"),
            ] {
                let mut message = method.sample(&Ids::random());
                set_text(&mut message, &field, &text);
                let Err(status) = method.call(&client, &message).await else { continue };
                if ["filter", "order_by"].contains(&field.name()) {
                    // The details of a syntax error contain the text. Only the caller gets the
                    // details, but the message may be logged.
                    assert!(!status.message().contains(marker), "{}", method.path());
                    continue;
                }
                let error = format!("{} {:?}", status.message(), status.get_error_details());
                assert!(!error.contains(marker), "{} {}: {error}", method.path(), field.name());
                let bytes = String::from_utf8_lossy(status.details()).into_owned();
                assert!(!bytes.contains(marker), "{} {}", method.path(), field.name());
            }
        }
    }
}
