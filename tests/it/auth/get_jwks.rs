//! AuthService.GetJwks

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tenantry::proto::v1::{GetJwksRequest, JsonWebKey};
use tonic::Code;

use crate::harness::{Client, Forge, TestApp, assert_refused};

async fn jwks(client: &Client) -> Vec<JsonWebKey> {
    client.auth().get_jwks(GetJwksRequest {}).await.expect("keys").into_inner().keys
}

/// Verifies a token like a third party that has only the public keys.
fn verifies(key: &JsonWebKey, token: &str) -> bool {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["tenantry"]);
    validation.set_issuer(&["tenantry"]);
    let key = DecodingKey::from_rsa_components(&key.n, &key.e).expect("a key");
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

#[tokio::test]
async fn an_access_token_verifies_with_the_published_keys_alone() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let keys = jwks(&app.anonymous()).await;

    let (header, _) = Forge::read(&acme.tokens.access_token);
    let kid = header.kid.expect("a kid");
    let key = keys.iter().find(|key| key.kid == kid).expect("the token's key");
    assert!(verifies(key, &acme.tokens.access_token));
    assert!(!verifies(key, &app.forge().expired(&acme.tokens.access_token)));
    assert!(!verifies(key, &acme.tokens.refresh_token), "refresh tokens have other keys");
    let (refresh_header, _) = Forge::read(&acme.tokens.refresh_token);
    let refresh_kid = refresh_header.kid.expect("a kid");
    assert!(keys.iter().all(|key| key.kid != refresh_kid));
}

/// R21: the key id is the RFC 7638 thumbprint of the key.
#[tokio::test]
async fn the_id_of_a_key_is_its_thumbprint() {
    let app = TestApp::shared();

    for key in jwks(&app.anonymous()).await {
        assert_eq!((&*key.kty, &*key.alg, &*key.r#use, &*key.e), ("RSA", "RS256", "sig", "AQAB"));
        let canonical = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, key.e, key.n);
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        assert_eq!(key.kid, BASE64_URL_SAFE_NO_PAD.encode(hash));
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&key.n).expect("base64url").len(), 3072 / 8);
    }
}

#[tokio::test]
async fn every_client_gets_the_keys_unless_it_specifies_an_unknown_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;

    let keys = jwks(&app.anonymous()).await;
    assert!(!keys.is_empty());
    assert_eq!(jwks(&acme).await, keys);
    assert_eq!(jwks(&app.anonymous().with_metadata("x-tenant-id", "acme")).await, keys);
    let client = app.anonymous().with_metadata("x-tenant-id", "nowhere");
    let result = client.auth().get_jwks(GetJwksRequest {}).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
}
