//! HTTP/1 connections: encryption, large headers, slow clients, and their end.

use std::time::Duration;

use reqwest::{Certificate, Client};
use tenantry::proto::v1::{GetJwksRequest, WatchPermissionsRequest, WhoAmIRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use super::{
    ORIGIN,
    grpc_web_client::{BINARY, build_call, frame, send},
    spawn_with_grpc_web,
};
use crate::{
    harness::{TestApp, within_seconds},
    tls::{Authority, Files},
};

#[tokio::test]
async fn http1_is_encrypted_like_grpc() {
    let authority = Authority::new();
    let files = Files::create(&authority);
    let app = TestApp::with_settings(|values| {
        files.set(values);
        values.set("GRPC_WEB_ORIGINS", ORIGIN);
    })
    .await;
    let trusted = Certificate::from_pem(authority.pem().as_bytes()).expect("a certificate");
    let client = Client::builder()
        .tls_certs_only([trusted])
        .resolve("localhost", app.addr)
        .build()
        .expect("a client");
    let post = client
        .post(format!("https://localhost:{}/tenantry.v1.AuthService/WhoAmI", app.addr.port()));
    let request = post.header("content-type", BINARY).body(frame(&WhoAmIRequest {}));
    assert_eq!(send(request).await.status.code(), Code::Unauthenticated);
    let plaintext_result = build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).send().await;
    plaintext_result.expect_err("plaintext is refused");
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let app = spawn_with_grpc_web().await;
    let with_header = |size: usize| {
        build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {})
            .header("x-large", "x".repeat(size))
    };
    // The gate refuses metadata of more than 16 KiB. The HTTP/1 layer refuses larger headers
    // before the gate.
    let refusal = send(with_header(20_000)).await.refusal();
    assert_eq!(refusal, (Code::OutOfRange, "MESSAGE_TOO_LARGE".into()));
    let response = with_header(40_000).send().await.expect("a response");
    assert_eq!(response.status(), 431);
}

/// G13: an HTTP/1 connection is closed when its headers or its body never end, or when it has no
/// calls.
#[tokio::test]
async fn silent_or_incomplete_connections_are_closed() {
    let app = spawn_with_grpc_web().await;
    let incomplete_headers =
        "POST /tenantry.v1.AuthService/GetJwks HTTP/1.1\r\nhost: localhost\r\n";
    let complete_headers =
        format!("{incomplete_headers}content-type: {BINARY}\r\ncontent-length: 5\r\n\r\n");
    let complete_body = frame(&GetJwksRequest::default());
    let mut streams = Vec::new();
    let health_headers = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: localhost\r\n";
    let incomplete_body =
        format!("{health_headers}content-type: {BINARY}\r\ncontent-length: 5\r\n\r\n\0\0")
            .into_bytes();
    for bytes in [
        &b""[..],
        b"POST",
        incomplete_headers.as_bytes(),
        &[complete_headers.as_bytes(), &complete_body].concat(),
        &incomplete_body,
    ] {
        let mut stream = TcpStream::connect(app.addr).await.expect("connects");
        stream.write_all(bytes).await.expect("sent");
        streams.push(stream);
    }
    let mut responses = Vec::new();
    for stream in &mut streams {
        let mut response = Vec::new();
        // The read ends when the server closes the connection.
        within_seconds(45, stream.read_to_end(&mut response)).await.ok();
        responses.push(String::from_utf8_lossy(&response).into_owned());
    }
    // Only the fourth client sent a complete request.
    assert!(responses[3].starts_with("HTTP/1.1 200"), "{responses:?}");
}

#[tokio::test]
async fn a_shutdown_ends_calls_and_their_connections() {
    let app = spawn_with_grpc_web().await;
    let acme = app.create_tenant("acme").await;
    let watch =
        build_call(&app, "PermissionService/WatchPermissions", &WatchPermissionsRequest::default());
    let stream =
        watch.bearer_auth(&acme.tokens.access_token).send().await.expect("the stream opens");
    // A connection that the client keeps for its next call, as browsers do.
    let keep_alive_client = Client::new();
    let call = build_call(&app, "AuthService/GetJwks", &GetJwksRequest::default());
    keep_alive_client.execute(call.build().expect("a request")).await.expect("a response");
    let body = tokio::spawn(stream.bytes());
    within_seconds(5, app.stop()).await;
    let bytes = body.await.expect("no panic").expect("the stream ends without an error");
    assert!(!bytes.is_empty());
}

#[tokio::test]
async fn connections_are_closed_at_their_maximum_age() {
    // The tenant signs up on a server with the default timeout. One second may be too short.
    let direct = TestApp::spawn().await;
    let acme = direct.create_tenant("acme").await;
    let app = TestApp::on_database(&direct.database, |values| {
        values.set("GRPC_WEB_ORIGINS", ORIGIN);
        values.set("MAX_CONNECTION_AGE", "1s");
        values.set("REQUEST_TIMEOUT", "1s");
    })
    .await;
    let watch =
        build_call(&app, "PermissionService/WatchPermissions", &WatchPermissionsRequest::default());
    let mut stream =
        watch.bearer_auth(&acme.tokens.access_token).send().await.expect("the stream opens");
    let start = tokio::time::Instant::now();
    // The maximum age applies even to a connection with a stream that never ends.
    within_seconds(10, async { while let Ok(Some(_)) = stream.chunk().await {} }).await;
    assert!(start.elapsed() > Duration::from_millis(500));
}
