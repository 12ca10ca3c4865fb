//! HTTP routes that require a permission.

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, StatusCode, header};
use tenantry_client::{Guard, Permission, Principal, Require, Verifier};
use tonic::{Code, Status};
use tower::ServiceExt;

use super::{call_count, client_builder, relay::Relay};
use crate::harness::{Client, TestApp, wait_until};

struct ReadInvoices;

impl Permission for ReadInvoices {
    const NAME: &'static str = "invoice:read";
}

/// Handler of a route that is guarded by a layer.
async fn handle_with_layer(caller: Principal) -> String {
    caller.subject.to_string()
}

/// Handler of a route that is guarded by an extractor.
async fn handle_with_extractor(caller: Require<ReadInvoices>) -> String {
    caller.subject.to_string()
}

/// Creates the guard of a service that signs in as a service account of the tenant.
async fn create_guard(app: &TestApp, admin: &Client) -> Guard {
    let account = admin.create_service_account("invoices", &["permission:check"]).await;
    let secret = admin.create_api_key(&account).await.secret;
    Guard::new(client_builder(app).api_key(secret).connect().expect("a client"))
}

fn router(guard: &Guard) -> Router {
    Router::new()
        .route("/layer", get(handle_with_layer).layer(guard.require("invoice:read")))
        .route("/extractor", get(handle_with_extractor))
        .with_state(guard.clone())
}

async fn send(
    router: &Router,
    path: &str,
    token: Option<&str>,
    content_type: &str,
) -> Response<Body> {
    let mut request = Request::get(path).header(header::CONTENT_TYPE, content_type);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    router
        .clone()
        .oneshot(request.body(Body::empty()).expect("a request"))
        .await
        .expect("a response")
}

async fn get_status(router: &Router, path: &str, token: Option<&str>) -> StatusCode {
    send(router, path, token, "text/plain").await.status()
}

async fn read_body(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1000).await.expect("a body");
    String::from_utf8(bytes.into()).expect("text")
}

#[tokio::test]
async fn only_callers_with_the_permission_are_allowed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let router = router(&create_guard(&app, &acme).await);
    let reader = acme.create_member("reader", &["invoice:read"]).await;
    let writer = acme.create_member("other", &["invoice:write"]).await;
    for path in ["/layer", "/extractor"] {
        let response = send(&router, path, None, "text/plain").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
        let expired_token = app.forge().expired(&reader.tokens.access_token);
        assert_eq!(get_status(&router, path, Some(&expired_token)).await, StatusCode::UNAUTHORIZED);
        let writer_status = get_status(&router, path, Some(&writer.tokens.access_token)).await;
        assert_eq!(writer_status, StatusCode::FORBIDDEN);
        let allowed_response =
            send(&router, path, Some(&reader.tokens.access_token), "text/plain").await;
        assert_eq!(allowed_response.status(), StatusCode::OK);
        assert_eq!(read_body(allowed_response).await, reader.user_id);
    }
}

#[tokio::test]
async fn grpc_requests_are_refused_with_a_grpc_status() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let router = router(&create_guard(&app, &acme).await);
    let member = acme.create_member("other", &[]).await;
    let token = &member.tokens.access_token;
    for (token, code) in [(None, Code::Unauthenticated), (Some(token), Code::PermissionDenied)] {
        let token = token.map(String::as_str);
        let response = send(&router, "/layer", token, "application/grpc+proto").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(Status::from_header_map(response.headers()).expect("a status").code(), code);
    }
}

/// Decisions are cached, but a change of roles applies within two seconds.
#[tokio::test]
async fn a_cached_decision_is_dropped_when_the_role_is_unassigned() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let router = router(&create_guard(&app, &acme).await);
    let reader = acme.create_user("reader@acme.test").await;
    let role =
        acme.create_role("reader", tenantry::proto::v1::RoleLevel::Member, &["invoice:read"]).await;
    acme.assign(&reader, &role).await;
    let reader_client = acme.login("acme", "reader@acme.test", crate::harness::PASSWORD).await;
    let token = Some(reader_client.tokens.access_token.as_str());

    // The client caches decisions only after the first message of the watch stream.
    wait_until(5, async || {
        assert_eq!(get_status(&router, "/layer", token).await, StatusCode::OK);
        let count_before = call_count(&app, "PermissionService/Check", "OK").await;
        assert_eq!(get_status(&router, "/layer", token).await, StatusCode::OK);
        call_count(&app, "PermissionService/Check", "OK").await == count_before
    })
    .await;
    let count_before = call_count(&app, "PermissionService/Check", "OK").await;
    for _ in 0..50 {
        assert_eq!(get_status(&router, "/layer", token).await, StatusCode::OK);
    }
    assert_eq!(call_count(&app, "PermissionService/Check", "OK").await, count_before);

    acme.unassign(&reader, &role).await;
    wait_until(2, async || get_status(&router, "/layer", token).await == StatusCode::FORBIDDEN)
        .await;
    acme.assign(&reader, &role).await;
    wait_until(2, async || get_status(&router, "/layer", token).await == StatusCode::OK).await;
}

#[tokio::test]
async fn with_a_cache_time_of_zero_nothing_is_cached() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("invoices", &["permission:check"]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let client = client_builder(&app).api_key(secret).connect().expect("a client");
    let verifier = Verifier::new(client.clone(), "tenantry", "tenantry");
    let guard = Guard::with(client, verifier, Duration::ZERO);
    let router = router(&guard);
    let reader = acme.create_member("reader", &["invoice:read"]).await;
    for _ in 0..5 {
        let token = Some(reader.tokens.access_token.as_str());
        assert_eq!(get_status(&router, "/layer", token).await, StatusCode::OK);
    }
    assert_eq!(call_count(&app, "PermissionService/Check", "OK").await, Some(5.0));
    assert_eq!(call_count(&app, "PermissionService/WatchPermissions", "OK").await, Some(0.0));
}

/// The verifier reaches the server, so the token is valid. The client of the guard does not reach
/// the server, so the permission cannot be checked.
#[tokio::test]
async fn no_request_is_allowed_while_the_server_is_unavailable() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let reader = acme.create_member("reader", &["invoice:read"]).await;
    let verifier =
        Verifier::new(client_builder(&app).connect().expect("a client"), "tenantry", "tenantry");
    let relay = Relay::start().await;
    let unreachable_client = tenantry_client::Client::builder(format!("http://{}", relay.addr))
        .api_key("tenantry_of-nobody")
        .deadline(Duration::from_millis(200))
        .connect()
        .expect("a client");
    let router = router(&Guard::with(unreachable_client, verifier, Duration::from_secs(10)));
    let token = Some(reader.tokens.access_token.as_str());
    assert_eq!(get_status(&router, "/layer", token).await, StatusCode::SERVICE_UNAVAILABLE);
}

/// A service account may check only users of its own tenant, so the guard gets no decision.
#[tokio::test]
async fn a_user_of_another_tenant_is_not_allowed() {
    let app = TestApp::shared();
    let (acme, globex) = (app.create_tenant("acme").await, app.create_tenant("globex").await);
    let router = router(&create_guard(&app, &acme).await);
    let reader = globex.create_member("reader", &["invoice:read"]).await;
    let token = Some(reader.tokens.access_token.as_str());
    assert_eq!(get_status(&router, "/layer", token).await, StatusCode::SERVICE_UNAVAILABLE);
}
