//! Messages and metadata that are too large.

use prost_reflect::Kind;
use tonic::Code;

use super::callers;
use crate::harness::{
    Ids, TestApp, assert_refused, assert_success_or_documented_error, methods, reason,
};

/// G08: a message is refused because of its size, although it is well-formed.
#[tokio::test]
async fn messages_of_ten_megabytes_are_refused_by_every_method() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in &callers {
        // A well-formed message with an unknown field of 10 MB.
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(999, &vec![b'x'; 10_000_000], &mut bytes);
        let reply = method.call_raw(client, bytes).await;
        assert!(reply.is_err(), "{}", method.path());
        assert_refused(reply, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    }
    assert_eq!(app.row_counts().await, rows_before);
}

/// G08: the limit is 1 MiB, and 64 KiB for a public method.
#[tokio::test]
async fn a_message_at_the_size_limit_is_accepted() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let method_named =
        |name: &str| methods().into_iter().find(|m| m.0.name() == name).expect("a method");
    let message = |length: usize| {
        let mut bytes = Vec::new();
        // The tag has two bytes and the length has three.
        prost::encoding::bytes::encode(999, &vec![b'x'; length - 5], &mut bytes);
        assert_eq!(bytes.len(), length);
        bytes
    };
    // The limit of public methods is smaller.
    for (method, limit) in [("WhoAmI", 1 << 20), ("GetJwks", 64 << 10)] {
        let method = method_named(method);
        method.call_raw(&acme, message(limit)).await.expect("a message at the limit is accepted");
        let reply = method.call_raw(&acme, message(limit + 1)).await;
        assert_refused(reply, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    }
}

/// G08: a list in a request has at most 1000 items.
#[tokio::test]
async fn lists_of_too_many_items_are_refused() {
    let app = TestApp::spawn().await;
    let mut lists = 0;
    for (method, client) in callers(&app).await {
        for field in method.0.input().fields().filter(prost_reflect::FieldDescriptor::is_list) {
            let mut message = method.sample(&Ids::random());
            let item = match (field.kind(), message.get_field(&field).into_owned()) {
                (Kind::Message(_), prost_reflect::Value::List(items)) => items[0].clone(),
                _ => prost_reflect::Value::String("invoice:read".into()),
            };
            message.set_field(&field, prost_reflect::Value::List(vec![item; 1001]));
            let reply = method.call(&client, &message).await;
            assert!(reply.is_err(), "{} {}", method.path(), field.name());
            assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
            lists += 1;
        }
    }
    assert!(lists >= 3, "{lists} lists");
}

/// G08: the size of one value and the total size are limited.
#[tokio::test]
async fn metadata_of_more_than_16_kib_is_refused_by_every_method() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in &callers {
        for (case, with_large_metadata) in [
            ("one value", client.with_metadata("x-large", &"x".repeat(16 * 1024))),
            (
                // Together, the values have more than 16 KiB.
                "many values",
                (0..20).fold(client.clone(), |c, _| c.with_metadata("x-large", &"x".repeat(900))),
            ),
        ] {
            let status = method.call(&with_large_metadata, &method.sample(&Ids::random())).await;
            let status = status.expect_err("refused");
            assert_eq!(status.code(), Code::OutOfRange, "{case}: {status:?}");
            assert_eq!(reason(&status), "MESSAGE_TOO_LARGE", "{case}");
        }
    }
    assert_eq!(app.row_counts().await, rows_before);
}

/// A19: an access token of a megabyte never reaches the service.
/// G08: other metadata of this size is refused too.
#[tokio::test]
async fn metadata_of_a_megabyte_is_refused_and_the_connection_stays_usable() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let method = methods().into_iter().find(|m| m.0.name() == "WhoAmI").expect("WhoAmI");
    for with_large_metadata in [
        acme.with_metadata("x-large", &"x".repeat(1 << 20)),
        acme.with_token(&"x".repeat(1 << 20)),
        acme.with_metadata("x-tenant-id", &"x".repeat(1 << 20)),
    ] {
        let reply = method.call(&with_large_metadata, &method.request()).await;
        assert!(reply.is_err());
        let reply = method.call(&acme, &method.request()).await;
        assert_eq!(assert_success_or_documented_error("the next call", &reply), "");
    }
}
