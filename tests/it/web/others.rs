//! Requests that are neither gRPC nor gRPC-Web.

use http::Request;
use http_body_util::Full;
use reqwest::{Client, Method};
use tenantry::proto::v1::{GetJwksRequest, WhoAmIRequest};
use tonic::body::Body;
use tower::ServiceExt;

use super::{
    serving,
    spoken::{BINARY, call, framed, url},
};
use crate::harness::TestApp;

/// Content types that are not gRPC. The first three are those that any page can send without a
/// preflight (Fetch, section 2.2.2: CORS-safelisted request headers).
const KINDS: [&str; 9] = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json",
    "application/grpcweb",
    "application/grpc-website",
    "application/grpc-web+json",
    "application/connect+proto",
    "application",
];

async fn over_http2(app: &TestApp, kind: &str) -> u16 {
    let request = Request::post(url(app, "AuthService/GetJwks").as_str())
        .header("content-type", kind)
        .body(Body::new(Full::from(framed(&GetJwksRequest::default()))))
        .expect("a request");
    app.channel.clone().oneshot(request).await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn other_content_types_and_methods_are_refused() {
    for app in [serving().await, TestApp::spawn().await] {
        for kind in KINDS {
            assert_eq!(over_http2(&app, kind).await, 415, "{kind}");
        }
        assert_eq!(over_http2(&app, "application/grpc").await, 200);
        assert_eq!(over_http2(&app, "application/grpc+proto").await, 200);
    }
    let app = serving().await;
    for kind in KINDS.into_iter().chain(["application/grpc", "application/grpc+proto"]) {
        let post = Client::new().post(url(&app, "AuthService/GetJwks"));
        let body = framed(&GetJwksRequest::default());
        let answer = post.header("content-type", kind).body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), 415, "{kind}");
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let ask = Client::new().request(method, url(&app, "AuthService/GetJwks"));
        assert_eq!(ask.send().await.expect("an answer").status(), 415);
    }
    let get = Client::new().get(url(&app, "AuthService/GetJwks")).header("content-type", BINARY);
    assert_eq!(get.send().await.expect("an answer").status(), 415);
}

#[tokio::test]
async fn without_configured_origins_grpc_web_is_off() {
    let app = TestApp::spawn().await;
    let sent = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).send().await;
    sent.expect_err("HTTP/1 is off");
    assert_eq!(over_http2(&app, BINARY).await, 415);
}
