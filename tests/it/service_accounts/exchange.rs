//! Exchange of a secret for an access token.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tenantry::{
    ids::TenantId,
    proto::v1::{
        CheckRequest, ExchangeApiKeyRequest, GetTenantRequest, IntrospectTokenRequest,
        ListRolesRequest, ListUsersRequest, LogoutRequest, RevokeApiKeyRequest,
        SuspendTenantRequest, WhoAmIRequest,
    },
};
use tonic::Code;
use tonic_types::StatusExt;

use super::secret_request;
use crate::{
    harness::{Client, Forge, TestApp, assert_refused},
    limits::{client_from, new_network_address, server_with_rate_limit},
};

#[tokio::test]
async fn a_secret_is_exchanged_for_a_token_with_the_accounts_claims() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let id = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&id).await;
    let reply = app.anonymous().auth().exchange_api_key(secret_request(&key.secret)).await;
    let reply = reply.expect("a token").into_inner();
    let (header, claims) = Forge::read(&reply.access_token);
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let key_id = key.api_key.expect("the key").id;
    for (claim, expected) in [
        ("sub", id.as_str()),
        ("sub_type", "service_account"),
        ("org", &acme.tenant_id),
        ("sid", &key_id),
    ] {
        assert_eq!(claims[claim], expected, "{claim}");
    }
    assert_eq!(claims["roles"], serde_json::json!(["billing"]));
    let lifetime = claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat");
    assert_eq!(lifetime, 15 * 60);
    let (_, user_claims) = Forge::read(&acme.tokens.access_token);
    assert_eq!(user_claims.get("sub_type"), None);

    let account = app.anonymous().with_token(&reply.access_token);
    let granted = account.decide(check_request("invoice:send")).await;
    let not_granted = account.decide(check_request("invoice:delete")).await;
    assert_eq!((granted.allowed, not_granted.allowed), (true, false));
    let request = IntrospectTokenRequest { token: reply.access_token };
    let introspection =
        acme.auth().introspect_token(request).await.expect("an answer").into_inner();
    assert!(introspection.active);
    assert_eq!((introspection.sub_type.as_str(), introspection.sid), ("service_account", key_id));
    // An account has no session that could be logged out.
    let result = account.auth().logout(LogoutRequest::default()).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
}

/// N31: a secret with an invented tenant writes nothing for that tenant.
#[tokio::test]
async fn a_secret_of_a_tenant_that_does_not_exist_is_recorded_for_no_tenant() {
    let app = TestApp::spawn().await;
    let tenant = TenantId::new();
    // The id of the tenant, 256 bits, and the first bytes of a checksum.
    let mut bytes = [tenant.0.as_bytes().as_slice(), &[7; 32]].concat();
    let checksum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(&checksum.as_ref()[..4]);
    let secret = format!("tenantry_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    let result = app.anonymous().auth().exchange_api_key(secret_request(&secret)).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let mut owner_connection = app.owner_connection().await;
    let tenants: Vec<String> = sqlx::query_scalar(
        "select tenant_id::text from audit_events where kind = 'sign_in_failed'",
    )
    .fetch_all(&mut owner_connection)
    .await
    .expect("events");
    assert_eq!(tenants, [TenantId::UNKNOWN.to_string()]);
}

fn check_request(permission: &str) -> CheckRequest {
    CheckRequest { permission: permission.into(), ..Default::default() }
}

/// An account may do what its roles permit, in its own tenant only.
#[tokio::test]
async fn an_account_does_only_what_its_roles_permit() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let id = acme.create_service_account("reader", &["user:read"]).await;
    let key = acme.create_api_key(&id).await;
    let account = app.anonymous().exchange(&key.secret).await;
    account.users().list_users(ListUsersRequest::default()).await.expect("permitted");
    let result = account.roles().list_roles(ListRolesRequest::default()).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    let client = account.with_metadata("x-tenant-id", &other.tenant_id);
    let result = client.users().list_users(ListUsersRequest::default()).await;
    assert_refused(result, Code::PermissionDenied, "TENANT_MISMATCH");
}

#[tokio::test]
async fn every_wrong_secret_gets_the_same_response() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let platform_admin = app.platform_admin().await;
    let create_key = |tenant: &Client| {
        let tenant = tenant.clone();
        async move {
            let account = tenant.create_service_account("worker", &[]).await;
            tenant.create_api_key(&account).await
        }
    };
    let (valid_key, key_of_other_tenant) = (create_key(&acme).await, create_key(&other).await);
    let account = acme.create_service_account("revoked", &[]).await;
    let revoked_key = acme.create_api_key(&account).await;
    let request = RevokeApiKeyRequest { api_key_id: revoked_key.api_key.expect("a key").id };
    acme.service_accounts().revoke_api_key(request).await.expect("revoked");
    let suspended_tenant = app.create_tenant("suspended").await;
    let secret_of_suspended = create_key(&suspended_tenant).await.secret;
    let request = SuspendTenantRequest { tenant: suspended_tenant.tenant_id.clone() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    let mut truncated_secret = valid_key.secret.clone();
    truncated_secret.truncate(truncated_secret.len() - 1);
    // A well-formed secret that matches no key.
    let unknown_secret = {
        let account = acme.create_service_account("unknown", &[]).await;
        let key = acme.create_api_key(&account).await;
        sqlx::query("update api_keys set secret_hash = '' where key_id = $1::uuid")
            .bind(key.api_key.expect("a key").id)
            .execute(&mut app.owner_connection().await)
            .await
            .expect("the hash is removed");
        key.secret
    };
    let anonymous = app.anonymous();
    let mut refusals = Vec::new();
    for (client, secret) in [
        (anonymous.clone(), truncated_secret.as_str()),
        (anonymous.clone(), "tenantry_x"),
        (anonymous.clone(), &acme.tokens.access_token[..150]),
        (anonymous.clone(), &unknown_secret),
        (anonymous.clone(), &revoked_key.secret),
        (anonymous.clone(), &secret_of_suspended),
        (anonymous.with_metadata("x-tenant-id", &acme.tenant_id), &key_of_other_tenant.secret),
        (anonymous.with_metadata("x-tenant-id", "nowhere"), &valid_key.secret),
    ] {
        let reply = client.auth().exchange_api_key(secret_request(secret)).await;
        let status = assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        refusals.push((status.message().to_owned(), status.get_error_details()));
    }
    for refusal in &refusals {
        assert_eq!(format!("{refusal:?}"), format!("{:?}", refusals[0]));
    }
    let client = anonymous.with_metadata("x-organization-slug", "acme");
    client.exchange(&valid_key.secret).await;
    // The failures with the unknown and the revoked secret are recorded. Those with a malformed
    // secret, or with a secret of another tenant, are not.
    assert_eq!(app.audit_event_count(&acme.tenant_id, "sign_in_failed").await, 2);
    assert_eq!(app.audit_event_count(&suspended_tenant.tenant_id, "sign_in_failed").await, 1);
}

#[tokio::test]
async fn an_exchange_without_a_credential_is_refused() {
    let app = TestApp::shared();
    let result = app.anonymous().auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn exchanges_are_recorded_as_sign_ins() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let id = acme.create_service_account("billing", &["tenant:read"]).await;
    let key = acme.create_api_key(&id).await;
    let account = app.anonymous().exchange(&key.secret).await;
    let request = GetTenantRequest { tenant: acme.tenant_id.clone() };
    account.tenants().get_tenant(request).await.expect("the tenant");
    let events = app.audit_events("signed_in").await;
    let last_event = events.last().expect("an event");
    let id: uuid::Uuid = id.parse().expect("a UUID");
    assert_eq!((last_event.actor_id, last_event.target_id), (Some(id), Some(id)));
    account.auth().who_am_i(WhoAmIRequest {}).await.expect("a response");
    assert_eq!(app.audit_events("signed_in").await.len(), events.len());
}

#[tokio::test]
async fn exchanges_are_rate_limited() {
    let app = server_with_rate_limit("RATE_LIMIT_API_KEY", "3/1h,off").await;
    let anonymous = client_from(&app, &new_network_address());
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let key = acme.create_api_key(&account).await;
    for _ in 0..3 {
        anonymous.exchange(&key.secret).await;
    }
    let result = anonymous.auth().exchange_api_key(secret_request(&key.secret)).await;
    let status = assert_refused(result, Code::ResourceExhausted, "RATE_LIMITED");
    assert!(status.get_error_details().retry_info().is_some());
}
