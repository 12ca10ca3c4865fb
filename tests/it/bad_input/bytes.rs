//! Undecodable messages, invalid Structs and unknown methods.

use prost::Message;
use prost_reflect::{FieldDescriptor, Kind, Value};
use prost_types::{ListValue, Struct, value::Kind as Json};
use tonic::{Code, Status, body::Body};
use tower::{Service, ServiceExt};

use super::callers;
use crate::harness::{Ids, Method, TestApp, assert_refused, assert_success_or_documented_error};

/// Bytes that are no protobuf message of any type.
const GARBAGE: &[&[u8]] = &[
    // A tag that does not end, a tag that is too large, and two tags of field 0.
    &[0xff],
    &[0xff; 16],
    &[0x00],
    &[0x02, 0x00],
    // Wire types that do not exist; the end of a group without its start.
    &[0x0e],
    &[0x0f, 0x01],
    &[0x0c],
    // Lengths larger than the rest of the message.
    &[0x0a, 0xff],
    &[0x0a, 0x05, b'a'],
    &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    // A varint that is cut off.
    &[0x80, 0x06, 0x80],
    b"GET / HTTP/1.1\r\n\r\n",
    b"{\"user_id\":\"x\"}",
];

#[tokio::test]
async fn undecodable_bytes_are_refused_by_every_method() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in &callers {
        for bytes in GARBAGE {
            let reply = method.call_raw(client, bytes.to_vec()).await;
            assert!(reply.is_err(), "{} accepted {bytes:x?}", method.path());
            assert_refused(reply, Code::InvalidArgument, "UNDECODABLE_MESSAGE");
        }
    }
    assert_eq!(app.row_counts().await, rows_before);
}

#[tokio::test]
async fn text_that_is_not_utf8_is_undecodable() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in &callers {
        for field in method.0.input().fields().filter(|field| field.kind() == Kind::String) {
            for invalid_text in [&b"\xff\xfe"[..], b"a\xc0\x80", b"\xed\xa0\x80", b"ok\x80"] {
                let mut bytes = method.sample(&Ids::random()).encode_to_vec();
                prost::encoding::bytes::encode(field.number(), &invalid_text.to_vec(), &mut bytes);
                let reply = method.call_raw(client, bytes).await;
                assert!(reply.is_err(), "{} {}", method.path(), field.name());
                let status = assert_refused(reply, Code::InvalidArgument, "UNDECODABLE_MESSAGE");
                assert!(
                    !status.message().contains(field.name()),
                    "the status contains the decoder's message"
                );
            }
        }
    }
    assert_eq!(app.row_counts().await, rows_before);
}

/// G08: the decoder accepts at most 100 nested messages.
#[tokio::test]
async fn structs_nested_too_deep_to_decode_are_refused() {
    let app = TestApp::spawn().await;
    let mut calls = 0;
    for (method, client) in callers(&app).await {
        let is_struct = |kind: &Kind| match kind {
            Kind::Message(message) => message.full_name() == "google.protobuf.Struct",
            _ => false,
        };
        for field in method.0.input().fields().filter(|field| is_struct(&field.kind())) {
            // The decoder accepts at most 100 nested messages.
            for (depth, is_too_deep) in [(10, false), (101, true), (1000, true)] {
                for nested in [nested_structs(depth), nested_lists(depth)] {
                    let mut bytes = method.sample(&Ids::random()).encode_to_vec();
                    prost::encoding::bytes::encode(field.number(), &nested, &mut bytes);
                    let reply = method.call_raw(&client, bytes).await;
                    let case = format!("{} {} {depth}", method.path(), field.name());
                    let reason = assert_success_or_documented_error(&case, &reply);
                    assert_eq!(reason == "UNDECODABLE_MESSAGE", is_too_deep, "{case}: {reason}");
                    calls += 1;
                }
            }
        }
    }
    // Each field gets six calls.
    assert!(calls >= 30, "{calls} calls");
}

/// N02: a request with a Struct nested more than 20 deep is refused.
#[tokio::test]
async fn structs_nested_more_than_20_deep_are_refused_by_every_method() {
    let app = TestApp::spawn().await;
    let mut calls = 0;
    for (method, client) in callers(&app).await {
        let is_struct = |field: &FieldDescriptor| match field.kind() {
            Kind::Message(message) => message.full_name() == "google.protobuf.Struct",
            _ => false,
        };
        let is_api_message = |field: &FieldDescriptor| match field.kind() {
            Kind::Message(message) => message.package_name() == "tenantry.v1",
            _ => false,
        };
        let input = method.0.input();
        let has_struct = |field: &FieldDescriptor| {
            let kind = field.kind();
            kind.as_message().is_some_and(|message| message.fields().any(|field| is_struct(&field)))
        };
        // The only nested messages with a Struct are batch items, and this test does not cover
        // batch items.
        let fields_with_struct: Vec<_> = input
            .fields()
            .filter(|field| is_api_message(field) && has_struct(field))
            .map(|field| field.name().to_owned())
            .collect();
        assert!(
            fields_with_struct.is_empty() || fields_with_struct == ["items"],
            "{}: {fields_with_struct:?}",
            method.path()
        );
        for field in input.fields().filter(is_struct) {
            let ids = if client.user_id.is_empty() {
                Ids::random()
            } else {
                Ids::of_client(&client, &client.system_role("viewer").await)
            };
            // The outermost Struct or list contains 20 or 25 others.
            for nested in [nested_structs(20), nested_lists(20), nested_structs(25)] {
                let mut bytes = method.sample(&ids).encode_to_vec();
                prost::encoding::bytes::encode(field.number(), &nested, &mut bytes);
                let reply = method.call_raw(&client, bytes).await;
                assert!(reply.is_err(), "{} {}", method.path(), field.name());
                let status = assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
                assert!(status.message().contains("nested at most 20"), "{status:?}");
                calls += 1;
            }
        }
    }
    // Each field gets three calls.
    assert!(calls >= 18, "{calls} calls");
}

/// An encoded `Struct` inside `depth` others. Field 5 of a `Value` is a `Struct`, fields 1 and 2 of
/// an entry are the key and the value, and field 1 of a `Struct` has the entries.
fn nested_structs(depth: usize) -> Vec<u8> {
    let mut inner = Struct::default().encode_to_vec();
    for _ in 0..depth {
        let (mut value, mut entry, mut outer) = (Vec::new(), Vec::new(), Vec::new());
        prost::encoding::bytes::encode(5, &inner, &mut value);
        prost::encoding::string::encode(1, &"a".to_owned(), &mut entry);
        prost::encoding::bytes::encode(2, &value, &mut entry);
        prost::encoding::bytes::encode(1, &entry, &mut outer);
        inner = outer;
    }
    inner
}

/// An encoded `Struct` with a list inside `depth` other lists. Field 6 of a `Value` is a list, and
/// field 1 of a list has the items.
fn nested_lists(depth: usize) -> Vec<u8> {
    let empty_list = prost_types::Value { kind: Some(Json::ListValue(ListValue::default())) };
    let mut inner = empty_list.encode_to_vec();
    for _ in 0..depth {
        let (mut items, mut outer) = (Vec::new(), Vec::new());
        prost::encoding::bytes::encode(1, &inner, &mut items);
        prost::encoding::bytes::encode(6, &items, &mut outer);
        inner = outer;
    }
    let (mut entry, mut fields) = (Vec::new(), Vec::new());
    prost::encoding::string::encode(1, &"a".to_owned(), &mut entry);
    prost::encoding::bytes::encode(2, &inner, &mut entry);
    prost::encoding::bytes::encode(1, &entry, &mut fields);
    fields
}

#[tokio::test]
async fn numbers_that_json_cannot_represent_are_invalid() {
    let app = TestApp::spawn().await;
    for (method, client) in callers(&app).await {
        for field in method.0.input().fields() {
            let Kind::Message(struct_type) = field.kind() else { continue };
            if struct_type.full_name() != "google.protobuf.Struct" {
                continue;
            }
            for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let fields = [("a".to_owned(), prost_types::Value::from(number))].into();
                let mut message = method.sample(&Ids::random());
                // An empty tenant means the caller's tenant. An unknown tenant would be refused
                // first.
                message.clear_field_by_name("tenant");
                let mut struct_value = prost_reflect::DynamicMessage::new(struct_type.clone());
                struct_value.transcode_from(&Struct { fields }).expect("a struct");
                message.set_field(&field, Value::Message(struct_value));
                let reply = method.call(&client, &message).await;
                assert!(reply.is_err(), "{} {number}", method.path());
                assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
            }
        }
    }
}

/// Bodies that break gRPC's framing.
#[tokio::test]
async fn broken_frames_are_undecodable() {
    let app = TestApp::spawn().await;
    let callers = callers(&app).await;
    let rows_before = app.row_counts().await;
    for (method, client) in &callers {
        for (case, body) in [
            ("nothing", ""),
            ("half a header", "\0\0"),
            ("half a message", "\0\0\0\0\u{10}abc"),
            ("an unknown compression flag", "\u{2}\0\0\0\0"),
            ("a compressed message without an encoding", "\u{1}\0\0\0\0"),
        ] {
            let status = send_body(method, client, body).await;
            let case = format!("{} {case}", method.path());
            assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status:?}");
            assert_eq!(crate::harness::reason(&status), "UNDECODABLE_MESSAGE", "{case}");
        }
    }
    assert_eq!(app.row_counts().await, rows_before);
}

/// Sends a raw request body.
async fn send_body(method: &Method, client: &crate::harness::Client, body: &str) -> Status {
    let mut request = http::Request::post(method.path())
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body.to_owned()))
        .expect("a request");
    request.headers_mut().extend(client.metadata.0.clone().into_headers());
    let mut channel = client.channel.clone();
    let response = channel
        .ready()
        .await
        .expect("the channel is ready")
        .call(request)
        .await
        .expect("a response");
    Status::from_header_map(response.headers()).expect("a status")
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    for path in [
        "/",
        "/tenantry.v1.UserService",
        "/tenantry.v1.UserService/",
        "/tenantry.v1.UserService/Nothing",
        "/tenantry.v1.UserService/GetUser/",
        "/tenantry.v1.userservice/GetUser",
        "/tenantry.v1.UserService/getUser",
        "/tenantry.v1.Nothing/GetUser",
        "/tenantry.v2.UserService/GetUser",
        "//tenantry.v1.UserService/GetUser",
        "/tenantry.v1.UserService/GetUser%00",
        "/grpc.health.v1.Health/Nothing",
        "/x",
    ] {
        for client in [&acme, &app.anonymous()] {
            let reply = Method::call_path(client, path, Vec::new()).await;
            assert!(reply.is_err(), "{path}");
            assert_refused(reply, Code::Unimplemented, "METHOD_UNKNOWN");
        }
    }
}
