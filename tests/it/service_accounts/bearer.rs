//! The secret of an API key as a bearer token, in tenants that allow this.

use tenantry::proto::v1::{
    CheckRequest, IntrospectTokenRequest, IntrospectTokenResponse, RevokeApiKeyRequest,
    UpdateTenantRequest, WhoAmIRequest,
};
use tonic::Code;

use super::secret_request;
use crate::{
    harness::{Client, Proxy, TestApp, assert_refused, struct_of, wait_until},
    limits::{client_from, new_network_address, server_with_rate_limit},
};

/// Sets whether a tenant accepts the secrets of API keys as bearer tokens.
async fn set_api_key_bearer(admin: &Client, allowed: bool) {
    let request = UpdateTenantRequest {
        tenant: admin.tenant_id.clone(),
        settings: struct_of(serde_json::json!({ "api_key_bearer": allowed })),
        ..UpdateTenantRequest::default()
    };
    admin.tenants().update_tenant(request).await.expect("changed");
}

async fn is_authenticated(client: &Client) -> bool {
    match client.auth().who_am_i(WhoAmIRequest {}).await {
        Ok(_) => true,
        refusal => {
            assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
            false
        }
    }
}

#[tokio::test]
async fn a_secret_works_as_a_token_only_while_the_tenant_allows_it_and_the_key_is_active() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&account).await;
    let client = app.anonymous().with_token(&key.secret);
    let replica_client = client.on_server(&second_replica.channel);
    assert!(!is_authenticated(&client).await);

    set_api_key_bearer(&acme, true).await;
    wait_until(1, || is_authenticated(&client)).await;
    wait_until(1, || is_authenticated(&replica_client)).await;
    let request = CheckRequest { permission: "invoice:send".into(), ..Default::default() };
    assert!(client.decide(request).await.allowed);

    set_api_key_bearer(&acme, false).await;
    wait_until(1, || async { !is_authenticated(&client).await }).await;
    wait_until(1, || async { !is_authenticated(&replica_client).await }).await;
    set_api_key_bearer(&acme, true).await;
    wait_until(1, || is_authenticated(&replica_client)).await;

    let revoke_request = RevokeApiKeyRequest { api_key_id: key.api_key.expect("a key").id };
    acme.service_accounts().revoke_api_key(revoke_request).await.expect("revoked");
    assert!(!is_authenticated(&client).await);
    wait_until(1, || async { !is_authenticated(&replica_client).await }).await;
}

#[tokio::test]
async fn a_call_with_a_cached_secret_sends_no_statement() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    set_api_key_bearer(&acme, true).await;
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&account).await;
    let url = proxy.postgres_url(&app.database);
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = app.anonymous().with_token(&key.secret).on_server(&second_replica.channel);
    let request = || CheckRequest { permission: "invoice:send".into(), ..Default::default() };
    // A replica that was delayed reads its feed late, and then decides with data from Postgres. So the
    // ten calls are repeated until none of them was disturbed.
    let ten_calls_send_no_statement = || async {
        replica_client.decide(request()).await;
        proxy.take_statements();
        for _ in 0..10 {
            assert!(replica_client.decide(request()).await.allowed);
        }
        proxy.take_statements().is_empty()
    };
    wait_until(20, ten_calls_send_no_statement).await;
}

#[tokio::test]
async fn a_secret_is_introspected_and_checked_like_a_token() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&account).await;
    let introspect = |client: &Client| {
        let (client, token) = (client.clone(), key.secret.clone());
        async move {
            let reply = client.auth().introspect_token(IntrospectTokenRequest { token }).await;
            reply.expect("an answer").into_inner()
        }
    };
    let check_request = CheckRequest {
        access_token: key.secret.clone(),
        permission: "invoice:send".into(),
        ..CheckRequest::default()
    };
    assert_eq!(introspect(&acme).await, IntrospectTokenResponse::default());
    assert!(!acme.decide(check_request.clone()).await.allowed);

    set_api_key_bearer(&acme, true).await;
    wait_until(1, || async { introspect(&acme).await.active }).await;
    let introspection = introspect(&acme).await;
    let api_key = key.api_key.clone().expect("a key");
    assert_eq!((introspection.sub, introspection.sid), (account, api_key.id));
    assert_eq!(introspection.exp, api_key.expire_time.expect("an expiry").seconds);
    assert_eq!(
        (introspection.token_type.as_str(), introspection.sub_type.as_str()),
        ("api_key", "service_account")
    );
    assert_eq!(introspection.roles, ["billing"]);
    assert!(acme.decide(check_request).await.allowed);
    for client in [&other, &acme.create_member("nobody", &[]).await] {
        assert_eq!(introspect(client).await, IntrospectTokenResponse::default());
    }
}

/// Only Postgres knows whether a secret is valid, so lookups are limited. A cached secret needs
/// no lookup and is not limited.
#[tokio::test]
async fn the_lookup_of_a_secret_is_limited_unless_the_secret_is_cached() {
    let app = server_with_rate_limit("RATE_LIMIT_API_KEY", "3/1h,off").await;
    let anonymous = client_from(&app, &new_network_address());
    let acme = app.create_tenant("acme").await;
    set_api_key_bearer(&acme, true).await;
    let account = acme.create_service_account("billing", &[]).await;
    let (valid_key, invalid_key) =
        (acme.create_api_key(&account).await, acme.create_api_key(&account).await);
    let account_client = anonymous.with_token(&valid_key.secret);
    assert!(is_authenticated(&account_client).await);
    sqlx::query("update api_keys set secret_hash = sha256(secret_hash) where key_id = $1::uuid")
        .bind(invalid_key.api_key.expect("a key").id)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the hash is changed");
    // The limit allows three lookups: the first was for the valid key.
    let guesser = anonymous.with_token(&invalid_key.secret);
    assert!(!is_authenticated(&guesser).await);
    assert!(!is_authenticated(&guesser).await);
    let result = guesser.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::ResourceExhausted, "RATE_LIMITED");
    for _ in 0..5 {
        assert!(is_authenticated(&account_client).await);
    }
}

/// N19: a malformed secret needs no lookup, so the limit does not count it.
#[tokio::test]
async fn malformed_secrets_do_not_use_up_the_limit() {
    let app = server_with_rate_limit("RATE_LIMIT_API_KEY", "3/1h,3/1h").await;
    let anonymous = client_from(&app, &new_network_address());
    let acme = app.create_tenant("acme").await;
    set_api_key_bearer(&acme, true).await;
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    // A secret ends with a checksum.
    let (start, end) = secret.split_at(secret.len() - 4);
    let mistyped_secret = format!("{start}{}", if end == "AAAA" { "BBBB" } else { "AAAA" });
    for _ in 0..30 {
        for malformed_secret in ["tenantry_x", &mistyped_secret] {
            assert!(!is_authenticated(&anonymous.with_token(malformed_secret)).await);
            let reply = anonymous.auth().exchange_api_key(secret_request(malformed_secret)).await;
            assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
    }
    anonymous.exchange(&secret).await;
    assert!(is_authenticated(&anonymous.with_token(&secret)).await);
}

#[tokio::test]
async fn the_setting_must_be_a_boolean() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request = UpdateTenantRequest {
        tenant: acme.tenant_id.clone(),
        settings: struct_of(serde_json::json!({ "api_key_bearer": "yes" })),
        ..UpdateTenantRequest::default()
    };
    let result = acme.tenants().update_tenant(request).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}
