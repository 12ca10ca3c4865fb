//! Envoy's external authorization, with Envoy's own messages.

use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::core::v3::{
        Address, HeaderMap, HeaderValue, SocketAddress, address,
        header_value_option::HeaderAppendAction,
    },
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use serde_json::json;
use tenantry::proto::v1::{LogoutRequest, RoleLevel, SuspendTenantRequest};
use tonic::{Code, codec::CompressionEncoding};

use crate::{
    harness::{Client, PASSWORD, Proxy, TestApp, assert_refused, wait_until},
    limits::{new_network_address as network, server_with_rate_limit},
};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn to_map(pairs: Pairs<'_>) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn check_request(http: HttpRequest, extensions: Pairs<'_>) -> CheckRequest {
    let request = Request { http: Some(http), ..Request::default() };
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(request),
            context_extensions: to_map(extensions),
            ..AttributeContext::default()
        }),
    }
}

async fn send(app: &TestApp, request: CheckRequest) -> CheckResponse {
    let mut envoy = AuthorizationClient::new(app.channel.clone());
    Box::pin(envoy.check(request)).await.expect("a response").into_inner()
}

/// Response for a request with these headers, on a route with these context extensions.
async fn check(app: &TestApp, headers: Pairs<'_>, extensions: Pairs<'_>) -> CheckResponse {
    let http = HttpRequest { headers: to_map(headers), ..HttpRequest::default() };
    send(app, check_request(http, extensions)).await
}

fn bearer_header(client: &Client) -> String {
    format!("Bearer {}", client.tokens.access_token)
}

/// Asserts that the request is allowed, and that each identity header replaces the client's header
/// of the same name. Returns the identity headers for the upstream service.
fn assert_allowed(response: CheckResponse) -> HashMap<String, String> {
    assert_eq!(response.status.expect("a status").code, 0);
    let Some(HttpResponse::OkResponse(ok)) = response.http_response else {
        panic!("the request is not allowed")
    };
    let overwrite = i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd);
    assert!(ok.headers.iter().all(|header| header.append_action == overwrite));
    let headers = ok.headers.into_iter().filter_map(|option| option.header);
    headers.map(|header| (header.key, header.value)).collect()
}

#[track_caller]
fn assert_denied(response: CheckResponse, code: Code, http_status: i32) -> DeniedHttpResponse {
    assert_eq!(response.status.expect("a status").code, i32::from(code));
    let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else {
        panic!("the request is not denied")
    };
    assert_eq!(denied.status.as_ref().expect("a status").code, http_status);
    denied
}

/// Context extensions of a route that requires `invoice:read`.
const READ_INVOICES: Pairs<'static> = &[("permission", "invoice:read")];

#[tokio::test]
async fn a_caller_with_the_routes_permission_is_allowed_and_identified() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let reader = acme.create_member("reader", &["invoice:read"]).await;
    let token = bearer_header(&reader);
    let headers = [("authorization", token.as_str()), ("x-tenantry-subject", "a forged subject")];
    let identity = assert_allowed(check(&app, &headers, READ_INVOICES).await);
    assert_eq!(identity["x-tenantry-subject"], reader.user_id);
    assert_eq!(identity["x-tenantry-tenant"], acme.tenant_id);
    assert_eq!(identity["x-tenantry-session"], reader.tokens.session_id);
    assert_eq!(identity["x-tenantry-subject-type"], "user");

    let response = check(&app, &headers, &[("permission", "invoice:write")]).await;
    let denied = assert_denied(response, Code::PermissionDenied, 403);
    assert!(denied.body.contains("PERMISSION_MISSING"), "{}", denied.body);
    // A caller without permissions is still authenticated.
    let other_token = bearer_header(&acme.create_member("other", &[]).await);
    let any_caller_route = [("access", "authenticated")];
    assert_allowed(check(&app, &[("authorization", &other_token)], &any_caller_route).await);
}

#[tokio::test]
async fn a_service_account_is_distinguished_from_a_user() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &["invoice:read"]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let request = crate::service_accounts::secret_request(&secret);
    let exchanged = acme.auth().exchange_api_key(request).await.expect("a token").into_inner();
    let token = format!("Bearer {}", exchanged.access_token);
    let identity = assert_allowed(check(&app, &[("authorization", &token)], READ_INVOICES).await);
    assert_eq!(identity["x-tenantry-subject"], account);
    assert_eq!(identity["x-tenantry-subject-type"], "service_account");
}

#[tokio::test]
async fn without_an_active_token_no_request_is_allowed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let expired = format!("Bearer {}", app.forge().expired(&acme.tokens.access_token));
    let repeated_token = format!("{},{}", bearer_header(&acme), bearer_header(&acme));
    let refresh = format!("Bearer {}", acme.tokens.refresh_token);
    for extensions in [READ_INVOICES, &[("access", "authenticated")]] {
        let response =
            assert_denied(check(&app, &[], extensions).await, Code::Unauthenticated, 401);
        assert!(response.body.contains("TOKEN_MISSING"), "{}", response.body);
        for token in [&expired, &repeated_token, &refresh] {
            let response = check(&app, &[("authorization", token)], extensions).await;
            assert_denied(response, Code::Unauthenticated, 401);
        }
    }
    acme.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let response = check(&app, &[("authorization", &bearer_header(&acme))], READ_INVOICES).await;
    assert_denied(response, Code::Unauthenticated, 401);
}

/// N43: an assignment whose scope has a number or a boolean applies to a route with this value.
#[tokio::test]
async fn numbers_and_booleans_in_the_scope_of_a_route_match() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (user, role) = (
        acme.create_user("reader@acme.test").await,
        acme.create_role("reader", RoleLevel::Member, &["invoice:read"]).await,
    );
    acme.assign_with_scope(&user, &role, json!({ "level": 3, "internal": true })).await;
    let token = bearer_header(&acme.login(&acme.slug, "reader@acme.test", PASSWORD).await);
    let headers = [("authorization", token.as_str())];
    let route_with = |level, internal| [("permission", "invoice:read"), level, internal];
    let internal = ("scope_json.internal", "true");
    for level in ["3", "3.0"] {
        let route = route_with(("scope_json.level", level), internal);
        assert_allowed(check(&app, &headers, &route).await);
    }
    for route in [
        route_with(("scope.level", "3"), internal),
        route_with(("scope_json.level", "\"3\""), internal),
        route_with(("scope_json.level", "4"), internal),
        route_with(("scope_json.level", "3"), ("scope.internal", "true")),
    ] {
        assert_denied(check(&app, &headers, &route).await, Code::PermissionDenied, 403);
    }
    // A value that is not JSON, and two values for the same field.
    for route in [
        route_with(("scope_json.level", "three"), internal),
        route_with(("scope_json.internal", "true"), ("scope.internal", "true")),
    ] {
        assert_denied(check(&app, &headers, &route).await, Code::InvalidArgument, 500);
    }
}

/// N43: Envoy may compress its messages.
#[tokio::test]
async fn the_message_of_envoy_may_be_compressed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let mut envoy = AuthorizationClient::new(app.channel.clone())
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let headers = to_map(&[("authorization", &bearer_header(&acme))]);
    let http = HttpRequest { headers, ..HttpRequest::default() };
    let request = check_request(http, &[("access", "authenticated")]);
    assert_allowed(Box::pin(envoy.check(request)).await.expect("a response").into_inner());
}

#[tokio::test]
async fn the_scope_comes_from_the_route() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let user = acme.create_user("eu@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["invoice:read"]).await;
    acme.assign_with_scope(&user, &role, json!({ "region": "eu" })).await;
    let token = bearer_header(&acme.login("acme", "eu@acme.test", PASSWORD).await);
    let headers = [("authorization", token.as_str())];
    let route_in = |region| [("permission", "invoice:read"), ("scope.region", region)];
    assert_allowed(check(&app, &headers, &route_in("eu")).await);
    assert_denied(check(&app, &headers, &route_in("us")).await, Code::PermissionDenied, 403);
    assert_denied(check(&app, &headers, READ_INVOICES).await, Code::PermissionDenied, 403);
}

#[tokio::test]
async fn every_request_on_a_route_without_valid_requirements_is_denied() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let token = bearer_header(&acme);
    for extensions in [
        &[][..],
        &[("permission", "invoice:*")],
        &[("permission", "")],
        &[("access", "public")],
        &[("access", "authenticated"), ("permission", "invoice:read")],
    ] {
        let response = check(&app, &[("authorization", &token)], extensions).await;
        assert_denied(response, Code::InvalidArgument, 500);
    }
    // Any client can send such a request, so it is not an error of the server.
    let response = send(&app, CheckRequest::default()).await;
    let denied = assert_denied(response, Code::InvalidArgument, 500);
    assert!(denied.body.contains("INVALID_FIELDS"), "{}", denied.body);
}

#[tokio::test]
async fn a_tenant_in_the_request_must_be_the_tenant_of_the_token() {
    let app = TestApp::spawn().await;
    let (acme, globex) = (app.create_tenant("acme").await, app.create_tenant("globex").await);
    let token = bearer_header(&acme);
    let check_with = async |header: &str, tenant: &str| {
        check(&app, &[("authorization", &token), (header, tenant)], READ_INVOICES).await
    };
    assert_allowed(check_with("x-organization-slug", "acme").await);
    assert_allowed(check_with("x-tenant-id", &acme.tenant_id).await);
    assert_denied(check_with("x-organization-slug", "globex").await, Code::PermissionDenied, 403);
    assert_denied(check_with("x-tenant-id", &globex.tenant_id).await, Code::PermissionDenied, 403);
    assert_denied(check_with("x-tenant-id", "acme,globex").await, Code::InvalidArgument, 400);

    // The rights of platform staff in the platform tenant are no rights in another tenant.
    let platform_admin = app.platform_admin().await;
    let staff_token = bearer_header(&platform_admin);
    for (header, tenant) in [("x-tenant-id", &acme.tenant_id), ("x-organization-slug", &acme.slug)]
    {
        let headers = [("authorization", staff_token.as_str()), (header, tenant)];
        let response = check(&app, &headers, READ_INVOICES).await;
        assert_denied(response, Code::PermissionDenied, 403);
    }
    let request = SuspendTenantRequest { tenant: "acme".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    wait_until(2, async || {
        let response = check(&app, &[("authorization", &token)], READ_INVOICES).await;
        response.status.expect("a status").code == i32::from(Code::PermissionDenied)
    })
    .await;
}

/// With `encode_raw_headers`, Envoy sends headers as a list.
#[tokio::test]
async fn a_repeated_raw_header_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let header = |value: String| HeaderValue {
        key: "authorization".into(),
        raw_value: value.into_bytes(),
        ..HeaderValue::default()
    };
    let with_raw_headers =
        |headers| HttpRequest { header_map: Some(HeaderMap { headers }), ..HttpRequest::default() };
    let single_header_request = with_raw_headers(vec![header(bearer_header(&acme))]);
    assert_allowed(send(&app, check_request(single_header_request, READ_INVOICES)).await);
    let repeated_header_request =
        with_raw_headers(vec![header(bearer_header(&acme)), header(bearer_header(&acme))]);
    assert_denied(
        send(&app, check_request(repeated_header_request, READ_INVOICES)).await,
        Code::Unauthenticated,
        401,
    );
}

/// Envoy may be configured to allow a request when the call fails, so the server responds with a
/// denial instead of an error.
#[tokio::test]
async fn no_request_is_allowed_while_postgres_is_unavailable() {
    let proxy = Proxy::postgres().await;
    let direct = TestApp::spawn().await;
    let url = proxy.postgres_url(&direct.database);
    let app =
        TestApp::on_database(&direct.database, |values| values.set("DATABASE_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    let token = bearer_header(&acme);
    assert_allowed(check(&app, &[("authorization", &token)], READ_INVOICES).await);
    proxy.cut();
    wait_until(10, async || {
        let response = check(&app, &[("authorization", &token)], READ_INVOICES).await;
        response.status.expect("a status").code == i32::from(Code::Unavailable)
    })
    .await;
    assert_denied(
        check(&app, &[("authorization", &token)], READ_INVOICES).await,
        Code::Unavailable,
        503,
    );
}

#[tokio::test]
async fn external_authorization_can_be_turned_off() {
    let app = TestApp::with_settings(|values| values.set("ENVOY_AUTHORIZATION", "off")).await;
    let response =
        AuthorizationClient::new(app.channel.clone()).check(CheckRequest::default()).await;
    assert_refused(response, Code::Unimplemented, "METHOD_UNKNOWN");
}

/// N19: lookups of secrets are counted by the client address that a trusted Envoy reports.
#[tokio::test]
async fn secrets_behind_envoy_count_for_the_address_of_the_client() {
    let app = server_with_rate_limit("RATE_LIMIT_API_KEY", "3/1h,off").await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    // The tenant does not accept secrets as bearer tokens, so no response is cached and each secret
    // is looked up.
    let secret = format!("Bearer {}", acme.create_api_key(&account).await.secret);
    let code_for = async |envoy: &str, client: &str| {
        let socket = SocketAddress { address: client.into(), ..SocketAddress::default() };
        let address = Address { address: Some(address::Address::SocketAddress(socket)) };
        let headers = to_map(&[("authorization", secret.as_str())]);
        let mut request =
            check_request(HttpRequest { headers, ..HttpRequest::default() }, READ_INVOICES);
        if let Some(attributes) = &mut request.attributes {
            attributes.source = Some(Peer { address: Some(address), ..Peer::default() });
        }
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("x-forwarded-for", envoy.parse().expect("a value"));
        let response = AuthorizationClient::new(app.channel.clone()).check(request).await;
        response.expect("a response").into_inner().status.expect("a status").code
    };
    let (unauthenticated, rate_limited) =
        (i32::from(Code::Unauthenticated), i32::from(Code::ResourceExhausted));
    let (first_client, second_client, untrusted_envoy) = (network(), network(), network());
    for _ in 0..3 {
        assert_eq!(code_for("127.0.0.1", &first_client).await, unauthenticated);
    }
    assert_eq!(code_for("127.0.0.1", &first_client).await, rate_limited);
    assert_eq!(code_for("127.0.0.1", &second_client).await, unauthenticated);
    // Envoy at an untrusted address: lookups are counted by this address.
    for _ in 0..3 {
        assert_eq!(code_for(&untrusted_envoy, &network()).await, unauthenticated);
    }
    assert_eq!(code_for(&untrusted_envoy, &network()).await, rate_limited);
}
