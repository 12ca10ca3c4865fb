//! Signing keys that change while the server runs.

use std::{fs, path::Path, time::Duration};

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tenantry::{
    config::Values,
    proto::v1::{CheckRequest, Consistency, GetJwksRequest, RefreshRequest},
    tokens::pem::{self, KeyAlgorithm, TokenLifetimes},
};
use time::OffsetDateTime;
use tonic::Code;

use super::{assert_token_accepted, assert_token_refused};
use crate::harness::{Client, Forge, PASSWORD, TestApp, assert_refused, wait_until};

const LIFETIMES: TokenLifetimes =
    TokenLifetimes { access: Duration::from_mins(15), refresh: Duration::from_hours(1) };

/// Creates keys in a new folder.
fn create_keys(algorithm: KeyAlgorithm) -> TempDir {
    let dir = tempdir().expect("a folder");
    pem::ensure(dir.path(), algorithm).expect("keys");
    dir
}

fn use_keys(values: &mut Values, dir: &Path) {
    let paths = pem::paths(dir);
    for (name, path) in [
        ("JWT_ACCESS_PRIVATE_KEY_PATH", paths.access_private),
        ("JWT_ACCESS_PUBLIC_KEY_PATH", paths.access_public),
        ("JWT_REFRESH_PRIVATE_KEY_PATH", paths.refresh_private),
        ("JWT_REFRESH_PUBLIC_KEY_PATH", paths.refresh_public),
    ] {
        values.set(name, path.to_str().expect("text"));
    }
}

/// Adds new keys that start to sign after `delay`.
fn rotate(dir: &Path, delay: Duration) {
    let start = OffsetDateTime::now_utc() + delay;
    assert!(pem::rotate(dir, None, start, LIFETIMES).expect("rotated"));
}

/// Number of keys that the server publishes.
async fn published_key_count(client: &Client) -> usize {
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys").into_inner().keys.len()
}

fn kid(token: &str) -> String {
    Forge::read(token).0.kid.expect("a kid")
}

async fn sign_in(app: &TestApp) -> Client {
    app.anonymous().login("acme", "admin@acme.test", PASSWORD).await
}

/// Refreshes the session of a client. Returns a client with the new tokens.
async fn refresh(client: &Client) -> Client {
    let refresh_token = client.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, request_id: String::new() };
    let response = client.auth().refresh(request).await.expect("refreshed").into_inner();
    let mut refreshed = client.with_token(&response.access_token);
    refreshed.tokens.refresh_token = response.refresh_token;
    refreshed.tokens.access_token = response.access_token;
    refreshed
}

/// J03: tokens of the old key stay valid.
/// J04: every replica publishes the new key before any replica signs with it.
#[tokio::test]
async fn a_rotation_makes_no_token_fail_on_any_replica() {
    let dir = create_keys(KeyAlgorithm::Es256);
    let first_replica = TestApp::with_settings(|values| use_keys(values, dir.path())).await;
    let second_replica =
        TestApp::on_database(&first_replica.database, |values| use_keys(values, dir.path())).await;
    let acme = first_replica.create_tenant("acme").await;
    let acme_on_second = acme.on_server(&second_replica.channel);
    let old_kid = kid(&acme.tokens.access_token);

    // Both replicas publish the new key before any replica signs with it.
    rotate(dir.path(), Duration::from_secs(6));
    for client in [&acme, &acme_on_second] {
        wait_until(5, || async { published_key_count(client).await == 2 }).await;
    }
    assert_eq!(kid(&refresh(&acme).await.tokens.access_token), old_kid);

    let old_client = sign_in(&first_replica).await;
    wait_until(15, || async {
        let new_client = sign_in(&first_replica).await;
        assert_token_accepted(
            &new_client.on_server(&second_replica.channel),
            "a token on the other replica",
            &new_client.tokens.access_token,
        )
        .await;
        kid(&new_client.tokens.access_token) != old_kid
    })
    .await;
    for client in [&old_client, &old_client.on_server(&second_replica.channel)] {
        assert_token_accepted(client, "a token of the old key", &client.tokens.access_token).await;
    }
    let refreshed_client = refresh(&old_client.on_server(&second_replica.channel)).await;
    assert_token_accepted(
        &refreshed_client,
        "the refreshed token",
        &refreshed_client.tokens.access_token,
    )
    .await;
    first_replica.stop().await;
    second_replica.stop().await;
}

#[tokio::test]
async fn old_tokens_are_refused_after_a_replacement_of_the_keys() {
    let dir = create_keys(KeyAlgorithm::EdDsa);
    let app = TestApp::with_settings(|values| use_keys(values, dir.path())).await;
    let acme = app.create_tenant("acme").await;
    assert_token_accepted(&acme, "a token", &acme.tokens.access_token).await;
    let old_kid = kid(&acme.tokens.access_token);

    pem::replace(dir.path(), None).expect("replaced");
    wait_until(5, || async {
        let keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        let keys = keys.into_inner().keys;
        !keys.is_empty() && keys.iter().all(|key| key.kid != old_kid)
    })
    .await;
    assert_token_refused(&acme, "a token of the removed key", &acme.tokens.access_token).await;
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, request_id: String::new() };
    let reply = app.anonymous().auth().refresh(request).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let new_client = sign_in(&app).await;
    assert_token_accepted(&new_client, "a new token", &new_client.tokens.access_token).await;

    // The key of consistency tokens is derived from the signing keys, so it has changed too. A new
    // consistency token is accepted.
    let request = CheckRequest { permission: "a:b".into(), ..CheckRequest::default() };
    let token = new_client.decide(request.clone()).await.consistency_token;
    let fresh_request = CheckRequest {
        consistency: Consistency::AtLeastAsFresh.into(),
        consistency_token: token,
        ..request
    };
    new_client.decide(fresh_request).await;
}

#[tokio::test]
async fn unusable_files_leave_the_keys_unchanged() {
    let dir = create_keys(KeyAlgorithm::Es256);
    let app = TestApp::with_settings(|values| use_keys(values, dir.path())).await;
    let acme = app.create_tenant("acme").await;

    let file = pem::paths(dir.path()).access_public;
    let valid_content = fs::read(&file).expect("a file");
    fs::write(&file, "not a key").expect("written");
    let failed_metric = "tenantry_key_reloads_total{outcome=\"failed\"}";
    wait_until(10, || async { app.metric(failed_metric).await.is_some_and(|count| count >= 1.0) })
        .await;
    assert_token_accepted(&acme, "a token", &acme.tokens.access_token).await;
    let new_client = sign_in(&app).await;
    assert_token_accepted(&new_client, "a new token", &new_client.tokens.access_token).await;

    fs::write(&file, valid_content).expect("written");
    rotate(dir.path(), Duration::from_hours(1));
    wait_until(10, || async { published_key_count(&acme).await == 2 }).await;
}

/// Verifies tokens with only the published keys, as a third party does.
#[tokio::test]
async fn tokens_of_every_algorithm_verify_with_the_published_keys() {
    for (algorithm, name) in [
        (KeyAlgorithm::Rs256, "RS256"),
        (KeyAlgorithm::Es256, "ES256"),
        (KeyAlgorithm::EdDsa, "EdDSA"),
    ] {
        let dir = create_keys(algorithm);
        let app = TestApp::with_settings(|values| use_keys(values, dir.path())).await;
        let acme = app.create_tenant("acme").await;
        let token = &acme.tokens.access_token;

        let (_, body) = app.get("/.well-known/jwks.json").await;
        let keys: JwkSet = serde_json::from_str(&body).expect("a JWK set");
        let key = keys.find(&kid(token)).expect("the token's key");
        let (header, _) = Forge::read(token);
        assert_eq!(format!("{:?}", header.alg), name);
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&["tenantry"]);
        let decoding_key = DecodingKey::from_jwk(key).expect("a key");
        jsonwebtoken::decode::<Value>(token, &decoding_key, &validation).expect("verifies");
    }
}
