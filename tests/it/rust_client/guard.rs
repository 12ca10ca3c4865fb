//! HTTP routes that require a permission.

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, StatusCode, header};
use tenantry_client::{Guard, Permission, Principal, Require, Verifier};
use tonic::{Code, Status};
use tower::ServiceExt;

use super::{answered, client, relay::Relay};
use crate::harness::{Client, TestApp, until};

struct ReadInvoices;

impl Permission for ReadInvoices {
    const NAME: &'static str = "invoice:read";
}

async fn by_layer(caller: Principal) -> String {
    caller.subject.to_string()
}

async fn by_extractor(caller: Require<ReadInvoices>) -> String {
    caller.subject.to_string()
}

/// The guard of a service. Its client signs in as a service account of the tenant.
async fn guard(app: &TestApp, admin: &Client) -> Guard {
    let account = admin.create_service_account("invoices", &["permission:check"]).await;
    let secret = admin.create_api_key(&account).await.secret;
    Guard::new(client(app).api_key(secret).connect().expect("a client"))
}

fn routes(guard: &Guard) -> Router {
    Router::new()
        .route("/layer", get(by_layer).layer(guard.require("invoice:read")))
        .route("/extractor", get(by_extractor))
        .with_state(guard.clone())
}

async fn ask(routes: &Router, path: &str, token: Option<&str>, kind: &str) -> Response<Body> {
    let mut request = Request::get(path).header(header::CONTENT_TYPE, kind);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    routes.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("answered")
}

async fn status(routes: &Router, path: &str, token: Option<&str>) -> StatusCode {
    ask(routes, path, token, "text/plain").await.status()
}

async fn body(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1000).await.expect("a body");
    String::from_utf8(bytes.into()).expect("text")
}

#[tokio::test]
async fn only_callers_with_the_permission_are_allowed() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let routes = routes(&guard(&app, &acme).await);
    let reader = acme.member("reader", &["invoice:read"]).await;
    let other = acme.member("other", &["invoice:write"]).await;
    for path in ["/layer", "/extractor"] {
        let refused = ask(&routes, path, None, "text/plain").await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
        let forged = app.forge().expired(&reader.tokens.access_token);
        assert_eq!(status(&routes, path, Some(&forged)).await, StatusCode::UNAUTHORIZED);
        let denied = status(&routes, path, Some(&other.tokens.access_token)).await;
        assert_eq!(denied, StatusCode::FORBIDDEN);
        let let_in = ask(&routes, path, Some(&reader.tokens.access_token), "text/plain").await;
        assert_eq!(let_in.status(), StatusCode::OK);
        assert_eq!(body(let_in).await, reader.user_id);
    }
}

#[tokio::test]
async fn grpc_requests_are_refused_with_a_grpc_status() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let routes = routes(&guard(&app, &acme).await);
    let other = acme.member("other", &[]).await;
    let token = &other.tokens.access_token;
    for (token, code) in [(None, Code::Unauthenticated), (Some(token), Code::PermissionDenied)] {
        let token = token.map(String::as_str);
        let answer = ask(&routes, "/layer", token, "application/grpc+proto").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(Status::from_header_map(answer.headers()).expect("a status").code(), code);
    }
}

/// Decisions are cached, but a change is known soon.
#[tokio::test]
async fn a_cached_decision_ends_with_the_role() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let routes = routes(&guard(&app, &acme).await);
    let reader = acme.create_user("reader@acme.test").await;
    let role =
        acme.create_role("reader", tenantry::proto::v1::RoleLevel::Member, &["invoice:read"]).await;
    acme.assign(&reader, &role).await;
    let signed_in = acme.login("acme", "reader@acme.test", crate::harness::PASSWORD).await;
    let token = Some(signed_in.tokens.access_token.as_str());

    // Decisions are cached after the first message of the watch stream.
    until(5, async || {
        assert_eq!(status(&routes, "/layer", token).await, StatusCode::OK);
        let before = answered(&app, "PermissionService/Check", "OK").await;
        assert_eq!(status(&routes, "/layer", token).await, StatusCode::OK);
        answered(&app, "PermissionService/Check", "OK").await == before
    })
    .await;
    let before = answered(&app, "PermissionService/Check", "OK").await;
    for _ in 0..50 {
        assert_eq!(status(&routes, "/layer", token).await, StatusCode::OK);
    }
    assert_eq!(answered(&app, "PermissionService/Check", "OK").await, before);

    acme.unassign(&reader, &role).await;
    until(2, async || status(&routes, "/layer", token).await == StatusCode::FORBIDDEN).await;
    acme.assign(&reader, &role).await;
    until(2, async || status(&routes, "/layer", token).await == StatusCode::OK).await;
}

#[tokio::test]
async fn with_a_cache_time_of_zero_nothing_is_cached() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("invoices", &["permission:check"]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let client = client(&app).api_key(secret).connect().expect("a client");
    let verifier = Verifier::new(client.clone(), "tenantry", "tenantry");
    let guard = Guard::with(client, verifier, Duration::ZERO);
    let routes = routes(&guard);
    let reader = acme.member("reader", &["invoice:read"]).await;
    for _ in 0..5 {
        let token = Some(reader.tokens.access_token.as_str());
        assert_eq!(status(&routes, "/layer", token).await, StatusCode::OK);
    }
    assert_eq!(answered(&app, "PermissionService/Check", "OK").await, Some(5.0));
    assert_eq!(answered(&app, "PermissionService/WatchPermissions", "OK").await, Some(0.0));
}

/// The signing keys are cached, and the server is unavailable. No request is allowed because of
/// that.
#[tokio::test]
async fn no_request_is_allowed_while_the_server_is_unavailable() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let reader = acme.member("reader", &["invoice:read"]).await;
    let verifier = Verifier::new(client(&app).connect().expect("a client"), "tenantry", "tenantry");
    let relay = Relay::start().await;
    let away = tenantry_client::Client::builder(format!("http://{}", relay.addr))
        .api_key("tenantry_of-nobody")
        .deadline(Duration::from_millis(200))
        .connect()
        .expect("a client");
    let routes = routes(&Guard::with(away, verifier, Duration::from_secs(10)));
    let token = Some(reader.tokens.access_token.as_str());
    assert_eq!(status(&routes, "/layer", token).await, StatusCode::SERVICE_UNAVAILABLE);
}

/// A service account may check only users of its own tenant.
#[tokio::test]
async fn a_user_of_a_tenant_that_cannot_be_checked_is_not_allowed() {
    let app = TestApp::shared();
    let (acme, globex) = (app.tenant("acme").await, app.tenant("globex").await);
    let routes = routes(&guard(&app, &acme).await);
    let reader = globex.member("reader", &["invoice:read"]).await;
    let token = Some(reader.tokens.access_token.as_str());
    assert_eq!(status(&routes, "/layer", token).await, StatusCode::SERVICE_UNAVAILABLE);
}
