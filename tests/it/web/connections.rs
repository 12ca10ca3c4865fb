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
    ORIGIN, serving,
    spoken::{Answer, BINARY, call, framed},
};
use crate::{
    harness::{TestApp, within},
    tls::{Authority, Files},
};

#[tokio::test]
async fn http1_is_encrypted_like_grpc() {
    let authority = Authority::new();
    let files = Files::of(&authority);
    let app = TestApp::with(|values| {
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
    let sent = post.header("content-type", BINARY).body(framed(&WhoAmIRequest {}));
    assert_eq!(Answer::to(sent).await.status.code(), Code::Unauthenticated);
    let plain = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).send().await;
    plain.expect_err("plaintext is refused");
}

#[tokio::test]
async fn headers_above_a_size_are_refused() {
    let app = serving().await;
    let of = |size: usize| {
        call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).header("x-large", "x".repeat(size))
    };
    let refusal = Answer::to(of(20_000)).await.refusal();
    assert_eq!(refusal, (Code::OutOfRange, "MESSAGE_TOO_LARGE".into()));
    let beyond = of(40_000).send().await.expect("an answer");
    assert_eq!(beyond.status(), 431);
}

/// G13 for HTTP/1: a head or a body that never ends, and a connection without calls.
#[tokio::test]
async fn silent_or_incomplete_connections_are_closed() {
    let app = serving().await;
    let head = "POST /tenantry.v1.AuthService/GetJwks HTTP/1.1\r\nhost: localhost\r\n";
    let whole = format!("{head}content-type: {BINARY}\r\ncontent-length: 5\r\n\r\n");
    let body = framed(&GetJwksRequest::default());
    let mut streams = Vec::new();
    let health = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: localhost\r\n";
    let part =
        format!("{health}content-type: {BINARY}\r\ncontent-length: 5\r\n\r\n\0\0").into_bytes();
    for sent in [&b""[..], b"POST", head.as_bytes(), &[whole.as_bytes(), &body].concat(), &part] {
        let mut stream = TcpStream::connect(app.addr).await.expect("connects");
        stream.write_all(sent).await.expect("sent");
        streams.push(stream);
    }
    let mut answers = Vec::new();
    for stream in &mut streams {
        let mut answer = Vec::new();
        within(45, stream.read_to_end(&mut answer)).await.ok();
        answers.push(String::from_utf8_lossy(&answer).into_owned());
    }
    assert!(answers[3].starts_with("HTTP/1.1 200"), "{answers:?}");
}

#[tokio::test]
async fn a_shutdown_ends_calls_and_their_connections() {
    let app = serving().await;
    let acme = app.tenant("acme").await;
    let watch =
        call(&app, "PermissionService/WatchPermissions", &WatchPermissionsRequest::default());
    let open = watch.bearer_auth(&acme.tokens.access_token).send().await.expect("it opens");
    // A connection that the client keeps for its next call, as browsers do.
    let kept = Client::new();
    let idle = call(&app, "AuthService/GetJwks", &GetJwksRequest::default());
    kept.execute(idle.build().expect("a request")).await.expect("an answer");
    let whole = tokio::spawn(open.bytes());
    within(5, app.stop()).await;
    let ended = whole.await.expect("no panic").expect("the stream ends in order");
    assert!(!ended.is_empty());
}

#[tokio::test]
async fn connections_are_closed_at_their_maximum_age() {
    // It signs up where a request has more than a second.
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let app = TestApp::on(&direct.database, |values| {
        values.set("GRPC_WEB_ORIGINS", ORIGIN);
        values.set("MAX_CONNECTION_AGE", "1s");
        values.set("REQUEST_TIMEOUT", "1s");
    })
    .await;
    let watch =
        call(&app, "PermissionService/WatchPermissions", &WatchPermissionsRequest::default());
    let mut open = watch.bearer_auth(&acme.tokens.access_token).send().await.expect("it opens");
    let began = tokio::time::Instant::now();
    // The maximum age applies even to a connection with a stream that never ends.
    within(10, async { while let Ok(Some(_)) = open.chunk().await {} }).await;
    assert!(began.elapsed() > Duration::from_millis(500));
}
