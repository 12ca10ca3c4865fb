//! Messages that are compressed with gzip, in both directions.

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use futures::future::join_all;
use prost::Message;
use tenantry::proto::v1::{
    CheckRequest, CreateRoleRequest, ListRolesRequest, ListRolesResponse, RoleLevel, WhoAmIRequest,
};
use tonic::{Code, Status, body::Body, codec::CompressionEncoding::Gzip};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tower::{Service, ServiceExt};

use crate::harness::{
    Client, Ids, Method, ServerProcess, TestApp, assert_refused, methods, reason,
};

fn method_named(name: &str) -> Method {
    methods().into_iter().find(|method| method.0.name() == name).expect("a method")
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("compresses");
    encoder.finish().expect("compresses")
}

/// A compressed message with its gRPC prefix. The compression flag of the prefix is set.
pub fn compressed_frame(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("a length below 4 GiB").to_be_bytes();
    [&[1], &length[..], data].concat()
}

/// A message of `length` bytes, at least 16 KiB and at most 2 MiB: one unknown field.
fn message_of_length(length: usize) -> Vec<u8> {
    // The tag has two bytes and the length has three.
    let bytes = unknown_field(length - 5);
    assert_eq!(bytes.len(), length);
    bytes
}

fn unknown_field(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(999, &vec![b'x'; length], &mut bytes);
    bytes
}

/// Sends a raw body with these headers, and returns the response's headers and body.
async fn send_body(
    client: &Client,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (http::HeaderMap, Vec<u8>) {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Body::new(http_body_util::Full::from(body));
    let mut request = request.body(body).expect("a request");
    request.headers_mut().extend(client.metadata.0.clone().into_headers());
    let mut channel = client.channel.clone();
    let response = channel
        .ready()
        .await
        .expect("the channel is ready")
        .call(request)
        .await
        .expect("a response");
    let headers = response.headers().clone();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
    (headers, body.to_bytes().to_vec())
}

/// Sends a raw body that the server must refuse. Returns the headers and the status of the refusal.
async fn refusal(
    client: &Client,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (http::HeaderMap, Status) {
    let (headers, _) = send_body(client, path, headers, body).await;
    let status = Status::from_header_map(&headers).expect("a refusal");
    (headers, status)
}

/// N43: every method reads messages of a client that compresses them.
#[tokio::test]
async fn every_method_accepts_compressed_messages() {
    let app = TestApp::shared();
    let acme = app.create_tenant("gzip").await;
    let ids = Ids::random();
    for method in methods() {
        let message = method.sample(&ids).encode_to_vec();
        let reply = method.call_with_gzip(&app.anonymous(), message).await;
        let reason = reply.err().map(|status| reason(&status)).unwrap_or_default();
        let is_read =
            !["ENCODING_UNSUPPORTED", "UNDECODABLE_MESSAGE", "INTERNAL"].contains(&reason.as_str());
        assert!(is_read, "{}: {reason}", method.path());
    }
    method_named("WhoAmI").call_with_gzip(&acme, Vec::new()).await.expect("a response");
    let check = CheckRequest { permission: "user:read".into(), ..CheckRequest::default() };
    let mut permissions = acme.permissions().send_compressed(Gzip).accept_compressed(Gzip);
    assert!(permissions.check(check).await.expect("a response").into_inner().allowed);
    let mut roles = acme.roles().send_compressed(Gzip).accept_compressed(Gzip);
    let list = roles.list_roles(ListRolesRequest::default()).await.expect("a response");
    assert!(!list.into_inner().roles.is_empty());
}

/// N43: the limits of a message apply to the message after its decompression.
#[tokio::test]
async fn a_message_at_the_size_limit_is_accepted_after_decompression() {
    let app = TestApp::shared();
    let acme = app.create_tenant("gzip-limit").await;
    for (name, limit) in [("WhoAmI", 1 << 20), ("ListRoles", 1 << 20), ("GetJwks", 64 << 10)] {
        let method = method_named(name);
        let reply = method.call_with_gzip(&acme, message_of_length(limit)).await;
        reply.expect("a message at the limit is accepted");
        let reply = method.call_with_gzip(&acme, message_of_length(limit + 1)).await;
        assert_refused(reply, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    }
}

/// N43: a small message that is large after its decompression is refused by every method.
#[tokio::test]
async fn every_method_refuses_a_gzip_bomb() {
    let app = TestApp::shared();
    let acme = app.create_tenant("gzip-bomb").await;
    let bomb = compressed_frame(&gzip(&unknown_field(32 << 20)));
    assert!(bomb.len() < 64 * 1024, "{}", bomb.len());
    for method in methods() {
        let gzip = [("grpc-encoding", "gzip")];
        let (_, status) = refusal(&acme, &method.path(), &gzip, bomb.clone()).await;
        // Some methods check the permission before they read the message.
        if status.code() != Code::PermissionDenied {
            assert_eq!(status.code(), Code::OutOfRange, "{}: {status:?}", method.path());
            assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
        }
    }
}

/// N43: gzip bombs use no more memory than other messages of the maximum size.
#[tokio::test(flavor = "multi_thread")]
async fn gzip_bombs_use_bounded_memory() {
    let server = ServerProcess::start(&[]).await;
    let acme = Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    let bomb = compressed_frame(&gzip(&unknown_field(60 << 20)));
    let send = || async {
        let gzip = [("grpc-encoding", "gzip")];
        for path in ["/tenantry.v1.AuthService/WhoAmI", "/tenantry.v1.AuthService/GetJwks"] {
            let (_, status) = refusal(&acme, path, &gzip, bomb.clone()).await;
            assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
        }
    };
    send().await;
    let memory_before = server.proc_status_number("VmRSS");
    for _ in 0..3 {
        join_all((0..100).map(|_| send())).await;
    }
    let growth = server.proc_status_number("VmHWM").saturating_sub(memory_before);
    // The 600 messages would have 35 GiB.
    assert!(growth < 96 * 1024, "{growth} KiB");
    server.stop().await;
}

/// N43: data that is not gzip is the client's error.
#[tokio::test]
async fn malformed_gzip_is_undecodable() {
    let app = TestApp::shared();
    let acme = app.create_tenant("gzip-bad").await;
    let valid = gzip(&WhoAmIRequest {}.encode_to_vec());
    let encoded = [("grpc-encoding", "gzip")];
    let wrong_crc = [&valid[..valid.len() - 8], &[7; 8]].concat();
    for (case, headers, body) in [
        ("not gzip", &encoded[..], compressed_frame(b"hello")),
        ("empty", &encoded[..], compressed_frame(b"")),
        ("cut off", &encoded[..], compressed_frame(&valid[..valid.len() - 3])),
        ("wrong checksum", &encoded[..], compressed_frame(&wrong_crc)),
        ("two members", &encoded[..], compressed_frame(&[&valid[..], &valid].concat())),
        ("wrong length", &encoded[..], [&compressed_frame(&valid)[..], b"x"].concat()),
        ("only a flag", &encoded[..], vec![1]),
        ("no encoding", &[], compressed_frame(&valid)),
    ] {
        let (_, status) = refusal(&acme, "/tenantry.v1.AuthService/WhoAmI", headers, body).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status:?}");
        assert_eq!(reason(&status), "UNDECODABLE_MESSAGE", "{case}");
    }
}

/// N43: another encoding is refused, with the list of the supported encodings.
#[tokio::test]
async fn an_unknown_encoding_is_refused_with_the_supported_encodings() {
    let app = TestApp::shared();
    let body = compressed_frame(b"");
    for path in [
        "/tenantry.v1.AuthService/GetJwks",
        "/tenantry.v1.RoleService/ListRoles",
        "/envoy.service.auth.v3.Authorization/Check",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let encoding = [("grpc-encoding", "br")];
        let (headers, status) = refusal(&app.anonymous(), path, &encoding, body.clone()).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(reason(&status), "ENCODING_UNSUPPORTED", "{path}");
        assert_eq!(headers["grpc-accept-encoding"], "gzip,identity", "{path}");
    }
}

/// N43: large lists are compressed for a client that accepts gzip. Small responses and responses
/// with tokens are not.
#[tokio::test]
async fn only_large_lists_are_compressed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("gzip-list").await;
    for n in 0..20 {
        let role = CreateRoleRequest {
            name: format!("role-{n}"),
            level: RoleLevel::Member.into(),
            ..CreateRoleRequest::default()
        };
        acme.roles().create_role(role).await.expect("created");
    }
    let accepts = [("grpc-accept-encoding", "identity, deflate, gzip")];
    let list = "/tenantry.v1.RoleService/ListRoles";
    // The body is the frame of an empty message.
    let (headers, plain) = send_body(&acme, list, &[], vec![0; 5]).await;
    assert!(!headers.contains_key("grpc-encoding"));
    let (headers, body) = send_body(&acme, list, &accepts, vec![0; 5]).await;
    assert_eq!(headers["grpc-encoding"], "gzip");
    assert_eq!(body[0], 1);
    assert!(body.len() < plain.len() / 2, "{} of {}", body.len(), plain.len());
    let mut list = Vec::new();
    GzDecoder::new(&body[5..]).read_to_end(&mut list).expect("gzip");
    let list = ListRolesResponse::decode(&list[..]).expect("a list");
    assert_eq!(list, ListRolesResponse::decode(&plain[5..]).expect("a list"));
    for path in ["/tenantry.v1.TenantService/GetTenant", "/tenantry.v1.AuthService/GetJwks"] {
        let (headers, _) = send_body(&acme, path, &accepts, vec![0; 5]).await;
        assert!(!headers.contains_key("grpc-encoding"), "{path}");
        assert!(!headers.contains_key("content-length"), "{path}");
    }
}

/// N43: the services that come from libraries accept compressed messages too.
#[tokio::test]
async fn health_and_reflection_accept_compressed_messages() {
    let app = TestApp::shared();
    let mut health =
        HealthClient::new(app.channel.clone()).send_compressed(Gzip).accept_compressed(Gzip);
    health.check(HealthCheckRequest::default()).await.expect("a response");
    let mut reflection = ServerReflectionClient::new(app.channel.clone())
        .send_compressed(Gzip)
        .accept_compressed(Gzip);
    let symbol = MessageRequest::FileContainingSymbol("tenantry.v1.UserService".into());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(symbol) };
    let replies = reflection.server_reflection_info(futures::stream::iter([request])).await;
    let mut replies = replies.expect("a response").into_inner();
    replies.message().await.expect("a reply").expect("a reply");
    let bomb = compressed_frame(&gzip(&message_of_length(1 << 20)));
    let encoding = [("grpc-encoding", "gzip")];
    let (_, status) =
        refusal(&app.anonymous(), "/grpc.health.v1.Health/Check", &encoding, bomb).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
}
