//! A token is valid only with the server's own key and RS256.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm::{self, PS256, PS384, PS512, RS384, RS512},
    EncodingKey,
    jwk::Jwk,
};
use serde_json::{Value, json};

use super::{assert_token_accepted, assert_token_refused};
use crate::harness::{Forge, TestApp};

fn header_and_claims(token: &str) -> (Value, Value) {
    let (header, claims) = Forge::read(token);
    (serde_json::to_value(header).expect("a header"), claims)
}

/// A01: the algorithm `none` is not accepted.
#[tokio::test]
async fn a_token_without_an_algorithm_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let rows_before = app.rows_of(&acme.tenant_id).await;
    let (mut header, claims) = header_and_claims(&acme.tokens.access_token);
    let signature = acme.tokens.access_token.rsplit_once('.').expect("a signature").1.to_owned();

    for alg in ["none", "None", "NONE", "nOnE", ""] {
        header["alg"] = json!(alg);
        let unsigned = Forge::unsigned(&header.to_string(), &claims.to_string());
        assert_token_refused(&acme, alg, &format!("{unsigned}.")).await;
        assert_token_refused(&acme, alg, &unsigned).await;
        assert_token_refused(&acme, alg, &format!("{unsigned}.{signature}")).await;
    }
    assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before);
}

/// A02: an RSA public key is not a valid HMAC secret.
#[tokio::test]
async fn the_public_key_is_not_accepted_as_a_shared_secret() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let (mut header, claims) = header_and_claims(&acme.tokens.access_token);
    let jwk = Jwk::from_encoding_key(&forge.access, Algorithm::RS256).expect("a JWK");
    let jwk = serde_json::to_vec(&jwk).expect("JSON");
    let der = pem::parse(&forge.access_public_pem).expect("PEM").into_contents();
    let trimmed = forge.access_public_pem.trim_ascii_end().to_vec();

    for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        header["alg"] = json!(alg);
        for (what, secret) in [
            ("PEM", &forge.access_public_pem),
            ("PEM without its last line break", &trimmed),
            ("DER", &der),
            ("JWK", &jwk),
            ("an empty secret", &vec![]),
        ] {
            let key = EncodingKey::from_secret(secret);
            let token = Forge::sign_with(&key, alg, &header.to_string(), &claims.to_string());
            assert_token_refused(&acme, &format!("{alg:?} with {what}"), &token).await;
        }
    }
}

#[tokio::test]
async fn the_servers_key_is_valid_only_with_rs256() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let (mut header, claims) = header_and_claims(&acme.tokens.access_token);
    let valid_token = forge.sign_raw(&header.to_string(), &claims.to_string());
    assert_token_accepted(&acme, "a valid token", &valid_token).await;

    for alg in [RS384, RS512, PS256, PS384, PS512] {
        header["alg"] = json!(alg);
        let (header, claims) = (header.to_string(), claims.to_string());
        let other_algorithm_token = Forge::sign_with(&forge.access, alg, &header, &claims);
        assert_token_refused(&acme, &format!("{alg:?}"), &other_algorithm_token).await;
        let mislabeled_token = forge.sign_raw(&header, &claims);
        assert_token_refused(&acme, &format!("RS256 that says {alg:?}"), &mislabeled_token).await;
    }
}

/// A10: the signature covers the whole token.
#[tokio::test]
async fn a_changed_token_is_refused() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let token = &acme.tokens.access_token;
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    let payload = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(payload).expect("base64"));
    let payload = payload.expect("JSON");

    let moved_payload = payload.replace(&acme.tenant_id, &other.tenant_id);
    assert_ne!(moved_payload, payload);
    let last_digit = acme.tenant_id.chars().last().expect("a digit");
    let other_digit = if last_digit == '0' { '1' } else { '0' };
    // A UUID has 36 characters.
    let similar_id = format!("{}{other_digit}", &acme.tenant_id[..35]);
    // The new role name has the same length, so only the content of the claim changes.
    let raised_payload = payload.replace("org_admin", "platform_");
    assert_ne!(raised_payload, payload);
    for (what, payload) in [
        ("another tenant", moved_payload),
        ("one digit of the tenant", payload.replace(&acme.tenant_id, &similar_id)),
        ("another role", raised_payload),
        ("white space", format!(" {payload}")),
    ] {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        assert_token_refused(&acme, what, &format!("{header}.{payload}.{signature}")).await;
    }
    for (what, text) in [
        ("no signature", token.rsplit_once('.').expect("a dot").0.to_owned()),
        ("an empty signature", format!("{}.", token.rsplit_once('.').expect("a dot").0)),
        ("a fourth part", format!("{token}.{signature}")),
        ("a dot at the end", format!("{token}.")),
        ("a dot at the start", format!(".{token}")),
        ("padding", format!("{token}==")),
        ("the first half", token[..token.len() / 2].to_owned()),
        ("only dots", "..".to_owned()),
        ("a word", "x".to_owned()),
    ] {
        assert_token_refused(&acme, what, &text).await;
    }
}

/// A20: the first sign-in needs no earlier call.
#[tokio::test]
async fn the_first_call_of_a_server_may_be_a_sign_in() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let new_server = TestApp::on_database(&app.database, |_| {}).await;
    let request = tenantry::proto::v1::LoginRequest {
        email: acme.email.clone(),
        password: crate::harness::PASSWORD.into(),
        organization_slug: acme.slug.clone(),
        ..Default::default()
    };
    let tokens =
        new_server.anonymous().auth().login(request).await.expect("signed in").into_inner();
    assert_token_accepted(
        &new_server.anonymous(),
        "the token of the sign-in",
        &tokens.access_token,
    )
    .await;
}
