//! Signing keys that change while the server runs.

use std::{fs, path::Path, time::Duration};

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tenantry::{
    config::Values,
    proto::v1::{CheckRequest, Consistency, GetJwksRequest, RefreshRequest},
    tokens::pem::{self, KeyAlgorithm, Lifetimes},
};
use time::OffsetDateTime;
use tonic::Code;

use super::{token_accepted, token_refused};
use crate::harness::{Client, Forge, PASSWORD, TestApp, refused, until};

const LIVES: Lifetimes =
    Lifetimes { access: Duration::from_mins(15), refresh: Duration::from_hours(1) };

fn keys(algorithm: KeyAlgorithm) -> TempDir {
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

fn rotate(dir: &Path, ahead: Duration) {
    let starts = OffsetDateTime::now_utc() + ahead;
    assert!(pem::rotate(dir, None, starts, LIVES).expect("rotated"));
}

async fn published(client: &Client) -> usize {
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys").into_inner().keys.len()
}

fn kid(token: &str) -> String {
    Forge::read(token).0.kid.expect("a kid")
}

async fn sign_in(app: &TestApp) -> Client {
    app.anonymous().login("acme", "admin@acme.test", PASSWORD).await
}

async fn refresh(client: &Client) -> Client {
    let refresh_token = client.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, request_id: String::new() };
    let pair = client.auth().refresh(request).await.expect("refreshed").into_inner();
    let mut refreshed = client.with_token(&pair.access_token);
    refreshed.tokens.refresh_token = pair.refresh_token;
    refreshed.tokens.access_token = pair.access_token;
    refreshed
}

/// J03, J04: a key rotation does not interrupt service.
#[tokio::test]
async fn a_rotation_makes_no_token_fail_on_any_replica() {
    let dir = keys(KeyAlgorithm::Es256);
    let one = TestApp::with(|values| use_keys(values, dir.path())).await;
    let other = TestApp::on(&one.database, |values| use_keys(values, dir.path())).await;
    let before = one.tenant("acme").await;
    let other_replica_client = before.on(&other.channel);
    let old = kid(&before.tokens.access_token);

    // Both replicas publish the new key before any replica signs with it.
    rotate(dir.path(), Duration::from_secs(6));
    for client in [&before, &other_replica_client] {
        until(5, || async { published(client).await == 2 }).await;
    }
    assert_eq!(kid(&refresh(&before).await.tokens.access_token), old);

    let again = sign_in(&one).await;
    until(15, || async {
        let now = sign_in(&one).await;
        token_accepted(&now.on(&other.channel), "the other replica", &now.tokens.access_token)
            .await;
        kid(&now.tokens.access_token) != old
    })
    .await;
    for client in [&again, &again.on(&other.channel)] {
        token_accepted(client, "a token from before", &client.tokens.access_token).await;
    }
    let renewed = refresh(&again.on(&other.channel)).await;
    token_accepted(&renewed, "its successor", &renewed.tokens.access_token).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn after_a_compromise_old_tokens_are_refused_at_once() {
    let dir = keys(KeyAlgorithm::EdDsa);
    let app = TestApp::with(|values| use_keys(values, dir.path())).await;
    let acme = app.tenant("acme").await;
    token_accepted(&acme, "a token", &acme.tokens.access_token).await;
    let old = kid(&acme.tokens.access_token);

    pem::replace(dir.path(), None).expect("replaced");
    until(5, || async {
        let keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        let keys = keys.into_inner().keys;
        !keys.is_empty() && keys.iter().all(|key| key.kid != old)
    })
    .await;
    token_refused(&acme, "a token of a removed key", &acme.tokens.access_token).await;
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, request_id: String::new() };
    let reply = app.anonymous().auth().refresh(request).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let anew = sign_in(&app).await;
    token_accepted(&anew, "a new token", &anew.tokens.access_token).await;

    // Secrets derived from the keys change with them.
    let question = CheckRequest { permission: "a:b".into(), ..CheckRequest::default() };
    let token = anew.decide(question.clone()).await.consistency_token;
    let fresh = CheckRequest {
        consistency: Consistency::AtLeastAsFresh.into(),
        consistency_token: token,
        ..question
    };
    anew.decide(fresh).await;
}

#[tokio::test]
async fn unusable_files_leave_the_keys_unchanged() {
    let dir = keys(KeyAlgorithm::Es256);
    let app = TestApp::with(|values| use_keys(values, dir.path())).await;
    let acme = app.tenant("acme").await;

    let file = pem::paths(dir.path()).access_public;
    let good = fs::read(&file).expect("a file");
    fs::write(&file, "half a k").expect("written");
    let failed = "tenantry_key_reloads_total{outcome=\"failed\"}";
    until(10, || async { app.metric(failed).await.is_some_and(|times| times >= 1.0) }).await;
    token_accepted(&acme, "a token", &acme.tokens.access_token).await;
    let again = sign_in(&app).await;
    token_accepted(&again, "a new token", &again.tokens.access_token).await;

    fs::write(&file, good).expect("written");
    rotate(dir.path(), Duration::from_hours(1));
    until(10, || async { published(&acme).await == 2 }).await;
}

/// Verifies tokens with only the published keys, as a third party does.
#[tokio::test]
async fn tokens_of_every_algorithm_verify_with_the_published_keys() {
    for (algorithm, name) in [
        (KeyAlgorithm::Rs256, "RS256"),
        (KeyAlgorithm::Es256, "ES256"),
        (KeyAlgorithm::EdDsa, "EdDSA"),
    ] {
        let dir = keys(algorithm);
        let app = TestApp::with(|values| use_keys(values, dir.path())).await;
        let acme = app.tenant("acme").await;
        let token = &acme.tokens.access_token;

        let (_, page) = app.get("/.well-known/jwks.json").await;
        let keys: JwkSet = serde_json::from_str(&page).expect("a JWK set");
        let key = keys.find(&kid(token)).expect("the token's key");
        let (header, _) = Forge::read(token);
        assert_eq!(format!("{:?}", header.alg), name);
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&["tenantry"]);
        let decoding = DecodingKey::from_jwk(key).expect("a key");
        jsonwebtoken::decode::<Value>(token, &decoding, &validation).expect("verifies");
    }
}
