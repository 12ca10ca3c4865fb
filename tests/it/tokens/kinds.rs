//! An access token is not accepted as a refresh token, nor the reverse.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tenantry::proto::v1::{
    CheckRequest, DecisionReason, IntrospectTokenRequest, RefreshRequest, WhoAmIRequest,
};
use tonic::Code;

use super::{assert_token_accepted, assert_token_refused};
use crate::harness::{Client, Forge, TestApp, assert_refused};

async fn refresh(client: &Client, token: &str) -> Result<(), tonic::Status> {
    let request = RefreshRequest { refresh_token: token.into(), ..RefreshRequest::default() };
    client.auth().refresh(request).await.map(drop)
}

fn sign(key: &EncodingKey, header: &Header, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, key).expect("a token")
}

/// A03: the refused refresh token stays unused.
#[tokio::test]
async fn a_refresh_token_is_not_accepted_as_an_access_token() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let rows_before = app.rows_of(&acme.tenant_id).await;
    let token = acme.tokens.refresh_token.as_str();

    assert_token_refused(&acme, "a refresh token", token).await;
    let client_with_refresh_token = acme.with_token(token);
    let request = IntrospectTokenRequest { token: acme.tokens.access_token.clone() };
    let reply = client_with_refresh_token.auth().introspect_token(request).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let request = CheckRequest {
        permission: "user:read".into(),
        access_token: token.into(),
        ..CheckRequest::default()
    };
    let decision = acme.permissions().check(request).await.expect("an answer").into_inner();
    assert_eq!((decision.allowed, decision.reason()), (false, DecisionReason::TokenInvalid));

    assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before);
    refresh(&app.anonymous(), token).await.expect("the token was not used");
}

/// A04: the call does not count as a reuse, so the session stays live.
#[tokio::test]
async fn an_access_token_is_not_accepted_as_a_refresh_token() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let rows_before = app.rows_of(&acme.tenant_id).await;
    let anonymous = app.anonymous();

    let request = RefreshRequest {
        refresh_token: acme.tokens.access_token.clone(),
        ..RefreshRequest::default()
    };
    assert_refused(anonymous.auth().refresh(request).await, Code::Unauthenticated, "TOKEN_INVALID");

    assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before);
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("the session lives");
    refresh(&anonymous, &acme.tokens.refresh_token).await.expect("the token was not used");
}

/// The key, `typ` and `aud` each distinguish the kinds of tokens: if one of them does not match,
/// the token is refused.
#[tokio::test]
async fn key_type_and_audience_each_distinguish_the_kinds() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let (access_header, access_claims) = Forge::read(&acme.tokens.access_token);
    let (refresh_header, refresh_claims) = Forge::read(&acme.tokens.refresh_token);

    // Access tokens that are signed by the refresh key, with the kid of each key.
    assert_token_refused(&acme, "key", &sign(&forge.refresh, &access_header, &access_claims)).await;
    let mut header = access_header.clone();
    header.kid.clone_from(&refresh_header.kid);
    assert_token_refused(&acme, "key and kid", &sign(&forge.refresh, &header, &access_claims))
        .await;
    // First the access key with the type of refresh tokens, then the access key and type with the
    // audience of refresh tokens.
    header.clone_from(&access_header);
    header.typ.clone_from(&refresh_header.typ);
    assert_token_refused(&acme, "typ", &sign(&forge.access, &header, &access_claims)).await;
    assert_token_refused(&acme, "aud", &sign(&forge.access, &access_header, &refresh_claims)).await;

    // The same for refresh tokens.
    let anonymous = app.anonymous();
    header.clone_from(&refresh_header);
    header.typ.clone_from(&access_header.typ);
    let other_audience = {
        let mut claims = refresh_claims.clone();
        claims["aud"] = access_claims["aud"].clone();
        claims
    };
    for token in [
        sign(&forge.access, &refresh_header, &refresh_claims),
        sign(&forge.refresh, &header, &refresh_claims),
        sign(&forge.refresh, &refresh_header, &other_audience),
    ] {
        let status = refresh(&anonymous, &token).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    refresh(&anonymous, &acme.tokens.refresh_token).await.expect("the token was not used");
}

/// A05: the fixed claims are compared exactly.
#[tokio::test]
async fn issuer_audience_and_type_must_match_exactly() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let token = &acme.tokens.access_token;
    let (header, claims) = Forge::read(token);
    let audience = claims["aud"].as_str().expect("aud");
    let issuer = claims["iss"].as_str().expect("iss");

    for changes in [
        json!({ "aud": null }),
        json!({ "aud": "other" }),
        json!({ "aud": "" }),
        json!({ "aud": [] }),
        json!({ "aud": ["other"] }),
        json!({ "aud": format!("{audience}/refresh") }),
        json!({ "aud": format!("{audience}/") }),
        json!({ "aud": audience.to_uppercase() }),
        json!({ "iss": format!("{issuer}/") }),
        json!({ "iss": "https://tenantry" }),
        json!({ "iss": issuer.to_uppercase() }),
        json!({ "iss": [issuer] }),
        json!({ "iss": "" }),
    ] {
        assert_token_refused(&acme, &changes.to_string(), &forge.with_claims(token, &changes))
            .await;
    }
    let token_with_type = |typ: Option<&str>| {
        let mut header = header.clone();
        header.typ = typ.map(str::to_owned);
        forge.sign(&header, &claims)
    };
    for typ in [None, Some("JWT"), Some("rt+jwt"), Some(""), Some("at+jwt "), Some("xat+jwt")] {
        assert_token_refused(&acme, &format!("typ {typ:?}"), &token_with_type(typ)).await;
    }
    // The type is a media type (RFC 9068, section 4), so upper and lower case are equal.
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        assert_token_accepted(&acme, typ, &token_with_type(Some(typ))).await;
    }
}
