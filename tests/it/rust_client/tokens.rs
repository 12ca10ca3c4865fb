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

use super::{answered, client, relay::Relay};
use crate::harness::{TestApp, until};

async fn who_am_i(client: &Client) -> Result<WhoAmIResponse, Status> {
    let answer = AuthServiceClient::new(client.clone()).who_am_i(WhoAmIRequest {}).await;
    answer.map(tonic::Response::into_inner)
}

async fn at_once(client: &Client) -> Vec<WhoAmIResponse> {
    let calls = (0..32).map(|_| who_am_i(client));
    join_all(calls).await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

#[tokio::test]
async fn concurrent_calls_exchange_an_api_key_only_once() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let client = client(&app).api_key(secret).connect().expect("a client");
    for me in at_once(&client).await {
        assert_eq!(me.service_account.expect("itself").id, account);
    }
    at_once(&client).await;
    assert_eq!(answered(&app, "AuthService/ExchangeApiKey", "OK").await, Some(1.0));
    assert!(
        !format!("{client:?}").contains("tenantry_"),
        "the client's debug output shows its secret"
    );
}

#[tokio::test]
async fn concurrent_calls_refresh_a_session_only_once() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let client = client(&app).session(&acme.tokens.refresh_token).connect().expect("a client");
    for me in at_once(&client).await {
        assert_eq!(me.user.expect("the user").id, acme.user_id);
    }
    assert_eq!(answered(&app, "AuthService/Refresh", "OK").await, Some(1.0));
}

/// The server restarts with another signing key, so it refuses the tokens of its clients.
#[tokio::test]
async fn a_refused_token_is_replaced_and_the_call_is_repeated() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let relay = Relay::start().await;
    relay.relay_to(app.addr);
    let url = format!("http://{}", relay.addr);
    let client = Client::builder(url).api_key(secret).connect().expect("a client");
    who_am_i(&client).await.expect("an answer");

    let dir = tempdir().expect("a folder");
    pem::ensure(dir.path(), KeyAlgorithm::Es256).expect("keys");
    let keys = pem::paths(dir.path());
    let other = TestApp::on(&app.database, |values| {
        let path = |path: &Path| path.display().to_string();
        values.set("JWT_ACCESS_PRIVATE_KEY_PATH", path(&keys.access_private));
        values.set("JWT_ACCESS_PUBLIC_KEY_PATH", path(&keys.access_public));
    })
    .await;
    relay.relay_to(other.addr);
    at_once(&client).await;
    assert!(answered(&other, "AuthService/WhoAmI", "UNAUTHENTICATED").await >= Some(1.0));
    assert_eq!(answered(&other, "AuthService/ExchangeApiKey", "OK").await, Some(1.0));
}

#[tokio::test]
async fn a_client_whose_api_key_was_revoked_is_unauthenticated() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let key = acme.create_api_key(&account).await;
    let client = client(&app).api_key(key.secret).connect().expect("a client");
    who_am_i(&client).await.expect("an answer");
    acme.revoke_api_key(&key.api_key.expect("the key").id).await;
    let refused = who_am_i(&client).await.expect_err("its key is revoked");
    assert_eq!(refused.code(), Code::Unauthenticated);
    // One call with the old token, and one attempt to exchange the key.
    assert_eq!(answered(&app, "AuthService/WhoAmI", "UNAUTHENTICATED").await, Some(1.0));
    assert_eq!(answered(&app, "AuthService/ExchangeApiKey", "UNAUTHENTICATED").await, Some(1.0));
}

#[tokio::test]
async fn a_user_whose_session_has_ended_stays_signed_out() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let client = client(&app).session(&acme.tokens.refresh_token).connect().expect("a client");
    AuthServiceClient::new(client.clone()).logout(LogoutRequest::default()).await.expect("out");
    let refused = who_am_i(&client).await.expect_err("signed out");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// A refresh token works only once, but a lost answer may be requested again.
#[tokio::test]
async fn a_session_survives_lost_answers_of_refreshes() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let relay = Relay::start().await;
    let url = format!("http://{}", relay.addr);
    let session = Client::builder(url).session(&acme.tokens.refresh_token);
    let client = session.connect().expect("a client");
    let asking = client.clone();
    let call = tokio::spawn(async move { who_am_i(&asking).await });
    for tries in [1.0, 2.0] {
        relay.loses_answers_of(app.addr);
        until(10, async || answered(&app, "AuthService/Refresh", "OK").await == Some(tries)).await;
    }
    relay.relay_to(app.addr);
    let lost = call.await.expect("no panic").expect_err("both answers were lost");
    assert_eq!(lost.code(), Code::Unavailable);
    let me = who_am_i(&client).await.expect("an answer");
    assert_eq!(me.user.expect("the user").id, acme.user_id);
}
