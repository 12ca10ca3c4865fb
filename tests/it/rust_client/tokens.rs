//! The access token of a client.

use std::path::Path;

use futures::future::join_all;
use tempfile::tempdir;
use tenantry::tokens::pem::{self, KeyAlgorithm};
use tenantry_client::{
    Client,
    v1::{LogoutRequest, WhoAmIRequest, WhoAmIResponse, auth_service_client::AuthServiceClient},
};
use tonic::{Code, Status};

use super::{call_count, client_builder, relay::Relay};
use crate::harness::{TestApp, wait_until};

async fn who_am_i(client: &Client) -> Result<WhoAmIResponse, Status> {
    let reply = AuthServiceClient::new(client.clone()).who_am_i(WhoAmIRequest {}).await;
    reply.map(tonic::Response::into_inner)
}

/// Makes 32 calls concurrently.
async fn call_concurrently(client: &Client) -> Vec<WhoAmIResponse> {
    let calls = (0..32).map(|_| who_am_i(client));
    join_all(calls).await.into_iter().map(|reply| reply.expect("an answer")).collect()
}

#[tokio::test]
async fn concurrent_calls_exchange_an_api_key_only_once() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let client = client_builder(&app).api_key(secret).connect().expect("a client");
    for me in call_concurrently(&client).await {
        assert_eq!(me.service_account.expect("the service account").id, account);
    }
    call_concurrently(&client).await;
    assert_eq!(call_count(&app, "AuthService/ExchangeApiKey", "OK").await, Some(1.0));
    assert!(
        !format!("{client:?}").contains("tenantry_"),
        "the client's debug output shows its secret"
    );
}

#[tokio::test]
async fn concurrent_calls_refresh_a_session_only_once() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let client =
        client_builder(&app).session(&acme.tokens.refresh_token).connect().expect("a client");
    for me in call_concurrently(&client).await {
        assert_eq!(me.user.expect("the user").id, acme.user_id);
    }
    assert_eq!(call_count(&app, "AuthService/Refresh", "OK").await, Some(1.0));
}

/// The server restarts with another signing key, so it refuses the tokens of its clients.
#[tokio::test]
async fn a_client_replaces_a_refused_token_and_repeats_the_call() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let relay = Relay::start().await;
    relay.relay_to(app.addr);
    let url = format!("http://{}", relay.addr);
    let client = Client::builder(url).api_key(secret).connect().expect("a client");
    who_am_i(&client).await.expect("an answer");

    let dir = tempdir().expect("a folder");
    pem::ensure(dir.path(), KeyAlgorithm::Es256).expect("keys are created");
    let key_paths = pem::paths(dir.path());
    let new_server = TestApp::on_database(&app.database, |values| {
        let path = |path: &Path| path.display().to_string();
        values.set("JWT_ACCESS_PRIVATE_KEY_PATH", path(&key_paths.access_private));
        values.set("JWT_ACCESS_PUBLIC_KEY_PATH", path(&key_paths.access_public));
    })
    .await;
    relay.relay_to(new_server.addr);
    call_concurrently(&client).await;
    assert!(call_count(&new_server, "AuthService/WhoAmI", "UNAUTHENTICATED").await >= Some(1.0));
    assert_eq!(call_count(&new_server, "AuthService/ExchangeApiKey", "OK").await, Some(1.0));
}

#[tokio::test]
async fn a_client_whose_api_key_was_revoked_is_unauthenticated() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let key = acme.create_api_key(&account).await;
    let client = client_builder(&app).api_key(key.secret).connect().expect("a client");
    who_am_i(&client).await.expect("an answer");
    acme.revoke_api_key(&key.api_key.expect("the key").id).await;
    let error = who_am_i(&client).await.expect_err("the key is revoked");
    assert_eq!(error.code(), Code::Unauthenticated);
    // One call with the old token, and one attempt to exchange the key.
    assert_eq!(call_count(&app, "AuthService/WhoAmI", "UNAUTHENTICATED").await, Some(1.0));
    assert_eq!(call_count(&app, "AuthService/ExchangeApiKey", "UNAUTHENTICATED").await, Some(1.0));
}

#[tokio::test]
async fn a_client_whose_session_has_ended_is_unauthenticated() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let client =
        client_builder(&app).session(&acme.tokens.refresh_token).connect().expect("a client");
    AuthServiceClient::new(client.clone())
        .logout(LogoutRequest::default())
        .await
        .expect("signed out");
    let error = who_am_i(&client).await.expect_err("the client is signed out");
    assert_eq!(error.code(), Code::Unauthenticated);
}

/// A refresh token works only once. But if the response was lost, the client may send the same
/// request again.
#[tokio::test]
async fn a_session_survives_lost_responses_of_refreshes() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let relay = Relay::start().await;
    let url = format!("http://{}", relay.addr);
    let builder = Client::builder(url).session(&acme.tokens.refresh_token);
    let client = builder.connect().expect("a client");
    let calling_client = client.clone();
    let call = tokio::spawn(async move { who_am_i(&calling_client).await });
    for refreshes in [1.0, 2.0] {
        relay.lose_responses_of(app.addr);
        wait_until(10, async || {
            call_count(&app, "AuthService/Refresh", "OK").await == Some(refreshes)
        })
        .await;
    }
    relay.relay_to(app.addr);
    let error = call.await.expect("no panic").expect_err("both responses were lost");
    assert_eq!(error.code(), Code::Unavailable);
    let me = who_am_i(&client).await.expect("an answer");
    assert_eq!(me.user.expect("the user").id, acme.user_id);
}
