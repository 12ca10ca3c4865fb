//! A secret used instead of an access token, in tenants that accept it.

use tenantry::proto::v1::{
    CheckRequest, IntrospectTokenRequest, IntrospectTokenResponse, RevokeApiKeyRequest,
    UpdateTenantRequest, WhoAmIRequest,
};
use tonic::Code;

use super::by_secret;
use crate::{
    harness::{Client, Proxy, TestApp, refused, struct_of, until},
    limits::{address, at, limited},
};

/// Sets whether a tenant accepts API keys instead of tokens.
async fn takes(admin: &Client, takes: bool) {
    let request = UpdateTenantRequest {
        tenant: admin.tenant_id.clone(),
        settings: struct_of(serde_json::json!({ "api_key_bearer": takes })),
        ..UpdateTenantRequest::default()
    };
    admin.tenants().update_tenant(request).await.expect("changed");
}

async fn is_authenticated(client: &Client) -> bool {
    match client.auth().who_am_i(WhoAmIRequest {}).await {
        Ok(_) => true,
        refusal => {
            refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
            false
        }
    }
}

#[tokio::test]
async fn a_secret_works_as_a_token_only_while_the_tenant_allows_it_and_the_key_is_active() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&account).await;
    let here = app.anonymous().with_token(&key.secret);
    let replica_client = here.on(&second_replica.channel);
    assert!(!is_authenticated(&here).await);

    takes(&acme, true).await;
    until(1, || is_authenticated(&here)).await;
    until(1, || is_authenticated(&replica_client)).await;
    let question = CheckRequest { permission: "invoice:send".into(), ..Default::default() };
    assert!(here.decide(question).await.allowed);

    takes(&acme, false).await;
    until(1, || async { !is_authenticated(&here).await }).await;
    until(1, || async { !is_authenticated(&replica_client).await }).await;
    takes(&acme, true).await;
    until(1, || is_authenticated(&replica_client)).await;

    let request = RevokeApiKeyRequest { api_key_id: key.api_key.expect("a key").id };
    acme.service_accounts().revoke_api_key(request).await.expect("revoked");
    assert!(!is_authenticated(&here).await);
    until(1, || async { !is_authenticated(&replica_client).await }).await;
}

/// The server validates a cached secret without a query.
#[tokio::test]
async fn a_cached_secret_is_answered_from_memory() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    takes(&acme, true).await;
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&account).await;
    let url = proxy.postgres_url(&app.database);
    let second_replica = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = app.anonymous().with_token(&key.secret).on(&second_replica.channel);
    let question = || CheckRequest { permission: "invoice:send".into(), ..Default::default() };
    let is_warm = || async {
        replica_client.decide(question()).await;
        proxy.asked().is_empty()
    };
    until(10, is_warm).await;
    for _ in 0..10 {
        assert!(replica_client.decide(question()).await.allowed);
    }
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_secret_is_introspected_and_checked_like_a_token() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&account).await;
    let introspect = |client: &Client| {
        let (client, token) = (client.clone(), key.secret.clone());
        async move {
            let reply = client.auth().introspect_token(IntrospectTokenRequest { token }).await;
            reply.expect("an answer").into_inner()
        }
    };
    let question = CheckRequest {
        access_token: key.secret.clone(),
        permission: "invoice:send".into(),
        ..CheckRequest::default()
    };
    assert_eq!(introspect(&acme).await, IntrospectTokenResponse::default());
    assert!(!acme.decide(question.clone()).await.allowed);

    takes(&acme, true).await;
    until(1, || async { introspect(&acme).await.active }).await;
    let seen = introspect(&acme).await;
    let shown = key.api_key.clone().expect("a key");
    assert_eq!((seen.sub, seen.sid), (account, shown.id));
    assert_eq!(seen.exp, shown.expire_time.expect("an end").seconds);
    assert_eq!((seen.token_type.as_str(), seen.sub_type.as_str()), ("api_key", "service_account"));
    assert_eq!(seen.roles, ["billing"]);
    assert!(acme.decide(question).await.allowed);
    for client in [&other, &acme.member("nobody", &[]).await] {
        assert_eq!(introspect(client).await, IntrospectTokenResponse::default());
    }
}

/// Only Postgres knows whether a secret is valid, so lookups are limited. A cached secret needs
/// no lookup and is not limited.
#[tokio::test]
async fn lookups_of_secrets_are_limited_but_cached_secrets_are_not() {
    let app = limited("RATE_LIMIT_API_KEY", "3/1h,off").await;
    let anonymous = at(&app, &address());
    let acme = app.tenant("acme").await;
    takes(&acme, true).await;
    let account = acme.create_service_account("billing", &[]).await;
    let (known, unknown) =
        (acme.create_api_key(&account).await, acme.create_api_key(&account).await);
    let user = anonymous.with_token(&known.secret);
    assert!(is_authenticated(&user).await);
    sqlx::query("update api_keys set secret_hash = sha256(secret_hash) where key_id = $1::uuid")
        .bind(unknown.api_key.expect("a key").id)
        .execute(&mut app.owner().await)
        .await
        .expect("forgotten");
    let guesser = anonymous.with_token(&unknown.secret);
    assert!(!is_authenticated(&guesser).await);
    assert!(!is_authenticated(&guesser).await);
    let more = guesser.auth().who_am_i(WhoAmIRequest {}).await;
    refused(more, Code::ResourceExhausted, "RATE_LIMITED");
    for _ in 0..5 {
        assert!(is_authenticated(&user).await);
    }
}

/// N19: a malformed secret needs no lookup, so the limit does not count it.
#[tokio::test]
async fn malformed_secrets_do_not_use_up_the_limit() {
    let app = limited("RATE_LIMIT_API_KEY", "3/1h,3/1h").await;
    let anonymous = at(&app, &address());
    let acme = app.tenant("acme").await;
    takes(&acme, true).await;
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let (start, end) = secret.split_at(secret.len() - 4);
    let mistyped = format!("{start}{}", if end == "AAAA" { "BBBB" } else { "AAAA" });
    for _ in 0..30 {
        for malformed in ["tenantry_x", &mistyped] {
            assert!(!is_authenticated(&anonymous.with_token(malformed)).await);
            let reply = anonymous.auth().exchange_api_key(by_secret(malformed)).await;
            refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
    }
    anonymous.exchange(&secret).await;
    assert!(is_authenticated(&anonymous.with_token(&secret)).await);
}

#[tokio::test]
async fn the_setting_must_be_a_boolean() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let request = UpdateTenantRequest {
        tenant: acme.tenant_id.clone(),
        settings: struct_of(serde_json::json!({ "api_key_bearer": "yes" })),
        ..UpdateTenantRequest::default()
    };
    let wrong = acme.tenants().update_tenant(request).await;
    refused(wrong, Code::InvalidArgument, "INVALID_FIELDS");
}
