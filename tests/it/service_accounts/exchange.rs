//! Exchange of a secret for an access token.

use tenantry::proto::v1::{
    CheckRequest, ExchangeApiKeyRequest, GetTenantRequest, IntrospectTokenRequest,
    ListRolesRequest, ListUsersRequest, LogoutRequest, RevokeApiKeyRequest, SuspendTenantRequest,
    WhoAmIRequest,
};
use tonic::Code;
use tonic_types::StatusExt;

use super::by_secret;
use crate::{
    harness::{Client, Forge, TestApp, refused},
    limits::{address, at, limited},
};

#[tokio::test]
async fn a_secret_is_exchanged_for_a_token_with_the_accounts_claims() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let id = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&id).await;
    let reply = app.anonymous().auth().exchange_api_key(by_secret(&key.secret)).await;
    let reply = reply.expect("a token").into_inner();
    let (header, claims) = Forge::read(&reply.access_token);
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let key_id = key.api_key.expect("the key").id;
    for (claim, wanted) in [
        ("sub", id.as_str()),
        ("sub_type", "service_account"),
        ("org", &acme.tenant_id),
        ("sid", &key_id),
    ] {
        assert_eq!(claims[claim], wanted, "{claim}");
    }
    assert_eq!(claims["roles"], serde_json::json!(["billing"]));
    let life = claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat");
    assert_eq!(life, 15 * 60);
    let (_, of_a_user) = Forge::read(&acme.tokens.access_token);
    assert_eq!(of_a_user.get("sub_type"), None);

    let account = app.anonymous().with_token(&reply.access_token);
    let own = account.decide(question("invoice:send")).await;
    let other = account.decide(question("invoice:delete")).await;
    assert_eq!((own.allowed, other.allowed), (true, false));
    let request = IntrospectTokenRequest { token: reply.access_token };
    let seen = acme.auth().introspect_token(request).await.expect("an answer").into_inner();
    assert!(seen.active);
    assert_eq!((seen.sub_type.as_str(), seen.sid), ("service_account", key_id));
    // An account has no session, only its key, so there is nothing to log out.
    let logout = account.auth().logout(LogoutRequest::default()).await;
    refused(logout, Code::NotFound, "NOT_FOUND");
}

fn question(permission: &str) -> CheckRequest {
    CheckRequest { permission: permission.into(), ..Default::default() }
}

/// An account may do what its roles permit, in its own tenant only.
#[tokio::test]
async fn an_account_does_only_what_its_roles_permit() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let id = acme.create_service_account("reader", &["user:read"]).await;
    let key = acme.create_api_key(&id).await;
    let account = app.anonymous().exchange(&key.secret).await;
    account.users().list_users(ListUsersRequest::default()).await.expect("permitted");
    let denied = account.roles().list_roles(ListRolesRequest::default()).await;
    refused(denied, Code::PermissionDenied, "PERMISSION_MISSING");
    let elsewhere = account.with("x-tenant-id", &other.tenant_id);
    let elsewhere = elsewhere.users().list_users(ListUsersRequest::default()).await;
    refused(elsewhere, Code::PermissionDenied, "TENANT_MISMATCH");
}

/// Every failure gets the same answer.
#[tokio::test]
async fn every_wrong_secret_gets_the_same_answer() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let root = app.platform_admin().await;
    let secret = |tenant: &Client| {
        let tenant = tenant.clone();
        async move {
            let account = tenant.create_service_account("worker", &[]).await;
            tenant.create_api_key(&account).await
        }
    };
    let (live, elsewhere) = (secret(&acme).await, secret(&other).await);
    let account = acme.create_service_account("revoked", &[]).await;
    let revoked = acme.create_api_key(&account).await;
    let request = RevokeApiKeyRequest { api_key_id: revoked.api_key.expect("a key").id };
    acme.service_accounts().revoke_api_key(request).await.expect("revoked");
    let suspended = app.tenant("suspended").await;
    let of_suspended = secret(&suspended).await.secret;
    let request = SuspendTenantRequest { tenant: suspended.tenant_id.clone() };
    root.tenants().suspend_tenant(request).await.expect("suspended");
    let mut mistyped = live.secret.clone();
    mistyped.truncate(mistyped.len() - 1);
    // A well-formed secret that matches no key.
    let unknown = {
        let account = acme.create_service_account("unknown", &[]).await;
        let key = acme.create_api_key(&account).await;
        sqlx::query("update api_keys set secret_hash = '' where key_id = $1::uuid")
            .bind(key.api_key.expect("a key").id)
            .execute(&mut app.owner().await)
            .await
            .expect("forgotten");
        key.secret
    };
    let anonymous = app.anonymous();
    let mut answers = Vec::new();
    for (client, secret) in [
        (anonymous.clone(), mistyped.as_str()),
        (anonymous.clone(), "tenantry_x"),
        (anonymous.clone(), &acme.tokens.access_token[..150]),
        (anonymous.clone(), &unknown),
        (anonymous.clone(), &revoked.secret),
        (anonymous.clone(), &of_suspended),
        (anonymous.with("x-tenant-id", &acme.tenant_id), &elsewhere.secret),
        (anonymous.with("x-tenant-id", "nowhere"), &live.secret),
    ] {
        let reply = client.auth().exchange_api_key(by_secret(secret)).await;
        let status = refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        answers.push((status.message().to_owned(), status.get_error_details()));
    }
    for answer in &answers {
        assert_eq!(format!("{answer:?}"), format!("{:?}", answers[0]));
    }
    let named = anonymous.with("x-organization-slug", "acme");
    named.exchange(&live.secret).await;
    // A failure without a known tenant is not recorded.
    assert_eq!(app.audited(&acme.tenant_id, "sign_in_failed").await, 2);
    assert_eq!(app.audited(&suspended.tenant_id, "sign_in_failed").await, 1);
}

#[tokio::test]
async fn an_exchange_without_a_credential_is_refused() {
    let app = TestApp::shared();
    let nothing = app.anonymous().auth().exchange_api_key(ExchangeApiKeyRequest::default()).await;
    refused(nothing, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn exchanges_are_recorded_as_sign_ins() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let id = acme.create_service_account("billing", &["tenant:read"]).await;
    let key = acme.create_api_key(&id).await;
    let account = app.anonymous().exchange(&key.secret).await;
    let request = GetTenantRequest { tenant: acme.tenant_id.clone() };
    account.tenants().get_tenant(request).await.expect("its tenant");
    let signed_in = app.recorded("signed_in").await;
    let last = signed_in.last().expect("an event");
    let id: uuid::Uuid = id.parse().expect("a UUID");
    assert_eq!((last.actor_id, last.target_id), (Some(id), Some(id)));
    account.auth().who_am_i(WhoAmIRequest {}).await.expect("itself");
    assert_eq!(app.recorded("signed_in").await.len(), signed_in.len());
}

#[tokio::test]
async fn exchanges_are_rate_limited() {
    let app = limited("RATE_LIMIT_API_KEY", "3/1h,off").await;
    let anonymous = at(&app, &address());
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let key = acme.create_api_key(&account).await;
    for _ in 0..3 {
        anonymous.exchange(&key.secret).await;
    }
    let more = anonymous.auth().exchange_api_key(by_secret(&key.secret)).await;
    let status = refused(more, Code::ResourceExhausted, "RATE_LIMITED");
    assert!(status.get_error_details().retry_info().is_some());
}
