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
use tonic::Code;

use crate::{
    harness::{Client, PASSWORD, Proxy, TestApp, refused, until},
    limits::{address as network, limited},
};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn map(pairs: Pairs<'_>) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn question(http: HttpRequest, extensions: Pairs<'_>) -> CheckRequest {
    let request = Request { http: Some(http), ..Request::default() };
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(request),
            context_extensions: map(extensions),
            ..AttributeContext::default()
        }),
    }
}

async fn send(app: &TestApp, question: CheckRequest) -> CheckResponse {
    let mut envoy = AuthorizationClient::new(app.channel.clone());
    Box::pin(envoy.check(question)).await.expect("an answer").into_inner()
}

/// Reply to Envoy for a request with these headers, on a route with these extensions.
async fn ask(app: &TestApp, headers: Pairs<'_>, extensions: Pairs<'_>) -> CheckResponse {
    let http = HttpRequest { headers: map(headers), ..HttpRequest::default() };
    send(app, question(http, extensions)).await
}

fn bearer(client: &Client) -> String {
    format!("Bearer {}", client.tokens.access_token)
}

/// The identity headers for the upstream service. Each header replaces the client's header of the
/// same name.
fn identity(answer: CheckResponse) -> HashMap<String, String> {
    assert_eq!(answer.status.expect("a status").code, 0);
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("no answer") };
    let replaces = i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd);
    assert!(ok.headers.iter().all(|header| header.append_action == replaces));
    let headers = ok.headers.into_iter().filter_map(|option| option.header);
    headers.map(|header| (header.key, header.value)).collect()
}

#[track_caller]
fn denied(answer: CheckResponse, code: Code, http: i32) -> DeniedHttpResponse {
    assert_eq!(answer.status.expect("a status").code, i32::from(code));
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else {
        panic!("it is not denied")
    };
    assert_eq!(denied.status.as_ref().expect("a status").code, http);
    denied
}

const READ: Pairs<'static> = &[("permission", "invoice:read")];

#[tokio::test]
async fn a_caller_with_the_routes_permission_is_allowed_and_identified() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let reader = acme.member("reader", &["invoice:read"]).await;
    let token = bearer(&reader);
    let headers = [("authorization", token.as_str()), ("x-tenantry-subject", "somebody else")];
    let names = identity(ask(&app, &headers, READ).await);
    assert_eq!(names["x-tenantry-subject"], reader.user_id);
    assert_eq!(names["x-tenantry-tenant"], acme.tenant_id);
    assert_eq!(names["x-tenantry-session"], reader.tokens.session_id);
    assert_eq!(names["x-tenantry-subject-type"], "user");

    let answer = ask(&app, &headers, &[("permission", "invoice:write")]).await;
    let denied = denied(answer, Code::PermissionDenied, 403);
    assert!(denied.body.contains("PERMISSION_MISSING"), "{}", denied.body);
    // A caller without permissions is still authenticated.
    let other = bearer(&acme.member("other", &[]).await);
    let any = [("access", "authenticated")];
    identity(ask(&app, &[("authorization", &other)], &any).await);
}

#[tokio::test]
async fn a_service_account_is_distinguished_from_a_user() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &["invoice:read"]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let request = crate::service_accounts::by_secret(&secret);
    let exchanged = acme.auth().exchange_api_key(request).await.expect("a token").into_inner();
    let token = format!("Bearer {}", exchanged.access_token);
    let names = identity(ask(&app, &[("authorization", &token)], READ).await);
    assert_eq!(names["x-tenantry-subject"], account);
    assert_eq!(names["x-tenantry-subject-type"], "service_account");
}

#[tokio::test]
async fn without_an_active_token_no_request_is_allowed() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let expired = format!("Bearer {}", app.forge().expired(&acme.tokens.access_token));
    let twice = format!("{},{}", bearer(&acme), bearer(&acme));
    let refresh = format!("Bearer {}", acme.tokens.refresh_token);
    for extensions in [READ, &[("access", "authenticated")]] {
        let answer = denied(ask(&app, &[], extensions).await, Code::Unauthenticated, 401);
        assert!(answer.body.contains("TOKEN_MISSING"), "{}", answer.body);
        for token in [&expired, &twice, &refresh] {
            let answer = ask(&app, &[("authorization", token)], extensions).await;
            denied(answer, Code::Unauthenticated, 401);
        }
    }
    acme.auth().logout(LogoutRequest::default()).await.expect("out");
    let answer = ask(&app, &[("authorization", &bearer(&acme))], READ).await;
    denied(answer, Code::Unauthenticated, 401);
}

#[tokio::test]
async fn the_scope_comes_from_the_route() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let user = acme.create_user("eu@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["invoice:read"]).await;
    acme.assign_within(&user, &role, json!({ "region": "eu" })).await;
    let token = bearer(&acme.login("acme", "eu@acme.test", PASSWORD).await);
    let headers = [("authorization", token.as_str())];
    let within = |region| [("permission", "invoice:read"), ("scope.region", region)];
    identity(ask(&app, &headers, &within("eu")).await);
    denied(ask(&app, &headers, &within("us")).await, Code::PermissionDenied, 403);
    denied(ask(&app, &headers, READ).await, Code::PermissionDenied, 403);
}

#[tokio::test]
async fn a_route_without_valid_requirements_is_closed() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let token = bearer(&acme);
    for extensions in [
        &[][..],
        &[("permission", "invoice:*")],
        &[("permission", "")],
        &[("access", "public")],
        &[("access", "authenticated"), ("permission", "invoice:read")],
    ] {
        let answer = ask(&app, &[("authorization", &token)], extensions).await;
        denied(answer, Code::Internal, 500);
    }
    denied(send(&app, CheckRequest::default()).await, Code::Internal, 500);
}

#[tokio::test]
async fn a_tenant_named_in_the_request_must_be_the_tokens() {
    let app = TestApp::spawn().await;
    let (acme, globex) = (app.tenant("acme").await, app.tenant("globex").await);
    let token = bearer(&acme);
    let asked = async |name: &str, tenant: &str| {
        ask(&app, &[("authorization", &token), (name, tenant)], READ).await
    };
    identity(asked("x-organization-slug", "acme").await);
    identity(asked("x-tenant-id", &acme.tenant_id).await);
    denied(asked("x-organization-slug", "globex").await, Code::PermissionDenied, 403);
    denied(asked("x-tenant-id", &globex.tenant_id).await, Code::PermissionDenied, 403);
    denied(asked("x-tenant-id", "acme,globex").await, Code::InvalidArgument, 400);

    let staff = app.platform_admin().await;
    let request = SuspendTenantRequest { tenant: "acme".into() };
    staff.tenants().suspend_tenant(request).await.expect("suspended");
    until(2, async || {
        let answer = ask(&app, &[("authorization", &token)], READ).await;
        answer.status.expect("a status").code == i32::from(Code::PermissionDenied)
    })
    .await;
}

/// Headers as Envoy sends them with `encode_raw_headers`.
#[tokio::test]
async fn a_repeated_raw_header_counts_as_repeated() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let header = |value: String| HeaderValue {
        key: "authorization".into(),
        raw_value: value.into_bytes(),
        ..HeaderValue::default()
    };
    let raw =
        |headers| HttpRequest { header_map: Some(HeaderMap { headers }), ..HttpRequest::default() };
    let once = raw(vec![header(bearer(&acme))]);
    identity(send(&app, question(once, READ)).await);
    let twice = raw(vec![header(bearer(&acme)), header(bearer(&acme))]);
    denied(send(&app, question(twice, READ)).await, Code::Unauthenticated, 401);
}

/// Envoy may be configured to allow a request when the call fails, so the server answers with a
/// denial instead of an error.
#[tokio::test]
async fn no_request_is_allowed_while_postgres_is_unavailable() {
    let proxy = Proxy::postgres().await;
    let direct = TestApp::spawn().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| values.set("DATABASE_URL", url)).await;
    let acme = app.tenant("acme").await;
    let token = bearer(&acme);
    identity(ask(&app, &[("authorization", &token)], READ).await);
    proxy.cut();
    until(10, async || {
        let answer = ask(&app, &[("authorization", &token)], READ).await;
        answer.status.expect("a status").code == i32::from(Code::Unavailable)
    })
    .await;
    denied(ask(&app, &[("authorization", &token)], READ).await, Code::Unavailable, 503);
}

#[tokio::test]
async fn with_the_setting_off_the_service_does_not_exist() {
    let app = TestApp::with(|values| values.set("ENVOY_AUTHORIZATION", "off")).await;
    let answer = AuthorizationClient::new(app.channel.clone()).check(CheckRequest::default()).await;
    refused(answer, Code::Unimplemented, "METHOD_UNKNOWN");
}

/// N19: lookups of secrets are counted by the client address that a trusted Envoy reports.
#[tokio::test]
async fn secrets_behind_envoy_count_for_the_clients_address() {
    let app = limited("RATE_LIMIT_API_KEY", "3/1h,off").await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    // The tenant does not accept secrets instead of tokens, so no answer is cached and each
    // secret is looked up.
    let secret = format!("Bearer {}", acme.create_api_key(&account).await.secret);
    let tried_from = async |envoy: &str, client: &str| {
        let socket = SocketAddress { address: client.into(), ..SocketAddress::default() };
        let address = Address { address: Some(address::Address::SocketAddress(socket)) };
        let headers = map(&[("authorization", secret.as_str())]);
        let mut asked = question(HttpRequest { headers, ..HttpRequest::default() }, READ);
        if let Some(attributes) = &mut asked.attributes {
            attributes.source = Some(Peer { address: Some(address), ..Peer::default() });
        }
        let mut request = tonic::Request::new(asked);
        request.metadata_mut().insert("x-forwarded-for", envoy.parse().expect("a value"));
        let answer = AuthorizationClient::new(app.channel.clone()).check(request).await;
        answer.expect("an answer").into_inner().status.expect("a status").code
    };
    let (unauthenticated, limited) =
        (i32::from(Code::Unauthenticated), i32::from(Code::ResourceExhausted));
    let (one, other, stranger) = (network(), network(), network());
    for _ in 0..3 {
        assert_eq!(tried_from("127.0.0.1", &one).await, unauthenticated);
    }
    assert_eq!(tried_from("127.0.0.1", &one).await, limited);
    assert_eq!(tried_from("127.0.0.1", &other).await, unauthenticated);
    // Lookups of an untrusted caller are counted by the caller's own address.
    for _ in 0..3 {
        assert_eq!(tried_from(&stranger, &network()).await, unauthenticated);
    }
    assert_eq!(tried_from(&stranger, &network()).await, limited);
}
