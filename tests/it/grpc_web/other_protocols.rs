//! Requests that are neither gRPC nor gRPC-Web.

use http::Request;
use http_body_util::Full;
use reqwest::{Client, Method};
use tenantry::proto::v1::{GetJwksRequest, WhoAmIRequest};
use tonic::body::Body;
use tower::ServiceExt;

use super::{
    grpc_web_client::{BINARY, build_call, frame, method_url},
    spawn_with_grpc_web,
};
use crate::harness::TestApp;

/// Content types that are neither gRPC nor gRPC-Web. A page of any origin can send the first three
/// without a preflight (Fetch, section 2.2.2: CORS-safelisted request headers).
const CONTENT_TYPES: [&str; 9] = [
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

/// Sends a call over HTTP/2 with this content type. Returns the HTTP status.
async fn http2_status(app: &TestApp, content_type: &str) -> u16 {
    let request = Request::post(method_url(app, "AuthService/GetJwks").as_str())
        .header("content-type", content_type)
        .body(Body::new(Full::from(frame(&GetJwksRequest::default()))))
        .expect("a request");
    app.channel.clone().oneshot(request).await.expect("a response").status().as_u16()
}

#[tokio::test]
async fn other_content_types_and_methods_are_refused() {
    for app in [spawn_with_grpc_web().await, TestApp::spawn().await] {
        for content_type in CONTENT_TYPES {
            assert_eq!(http2_status(&app, content_type).await, 415, "{content_type}");
        }
        assert_eq!(http2_status(&app, "application/grpc").await, 200);
        assert_eq!(http2_status(&app, "application/grpc+proto").await, 200);
    }
    // Over HTTP/1, only gRPC-Web is allowed, so even gRPC is refused.
    let app = spawn_with_grpc_web().await;
    for content_type in
        CONTENT_TYPES.into_iter().chain(["application/grpc", "application/grpc+proto"])
    {
        let post = Client::new().post(method_url(&app, "AuthService/GetJwks"));
        let body = frame(&GetJwksRequest::default());
        let response =
            post.header("content-type", content_type).body(body).send().await.expect("a response");
        assert_eq!(response.status(), 415, "{content_type}");
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let request = Client::new().request(method, method_url(&app, "AuthService/GetJwks"));
        assert_eq!(request.send().await.expect("a response").status(), 415);
    }
    let get_request =
        Client::new().get(method_url(&app, "AuthService/GetJwks")).header("content-type", BINARY);
    assert_eq!(get_request.send().await.expect("a response").status(), 415);
}

#[tokio::test]
async fn without_configured_origins_grpc_web_is_off() {
    let app = TestApp::spawn().await;
    let result = build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).send().await;
    result.expect_err("HTTP/1 is off");
    assert_eq!(http2_status(&app, BINARY).await, 415);
}
