//! Verification of tokens with the published keys.

use jsonwebtoken::Algorithm;
use serde_json::json;
use tenantry_client::{SubjectType, Verifier};

use super::{call_count, client_builder};
use crate::{
    harness::{Forge, TestApp},
    service_accounts::secret_request,
};

#[tokio::test]
async fn many_verifications_read_the_keys_once() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let verifier =
        Verifier::new(client_builder(&app).connect().expect("a client"), "tenantry", "tenantry");
    for _ in 0..10 {
        let principal = verifier.verify(&acme.tokens.access_token).await.expect("valid");
        assert_eq!(principal.subject.to_string(), acme.user_id);
        assert_eq!(principal.tenant.to_string(), acme.tenant_id);
        assert_eq!(principal.session.to_string(), acme.tokens.session_id);
        assert_eq!(principal.subject_type, SubjectType::User);
        assert_eq!(principal.roles, ["org_admin"]);
    }
    let account = acme.create_service_account("billing", &[]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let reply = acme.auth().exchange_api_key(secret_request(&secret)).await.expect("a token");
    let token = reply.into_inner().access_token;
    let principal = verifier.verify(&token).await.expect("valid");
    assert_eq!(principal.subject_type, SubjectType::ServiceAccount);
    assert_eq!(call_count(&app, "AuthService/GetJwks", "OK").await, Some(1.0));
}

#[tokio::test]
async fn invalid_tokens_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (forge, token) = (app.forge(), &acme.tokens.access_token);
    let verifier =
        Verifier::new(client_builder(&app).connect().expect("a client"), "tenantry", "tenantry");
    verifier.verify(token).await.expect("valid");
    let (header, claims) = Forge::read(token);
    let with_header = |change: &dyn Fn(&mut jsonwebtoken::Header)| {
        let mut header = header.clone();
        change(&mut header);
        forge.sign(&header, &claims)
    };
    let signed_by_refresh_key = Forge::sign_with(
        &forge.refresh,
        Algorithm::RS256,
        &serde_json::to_string(&header).expect("JSON"),
        &claims.to_string(),
    );
    let unsigned = Forge::unsigned(r#"{"alg":"none","typ":"at+jwt"}"#, &claims.to_string()) + ".";
    let invalid_tokens = [
        ("expired", forge.expired(token)),
        ("another issuer", forge.with_claims(token, &json!({"iss": "another"}))),
        ("another audience", forge.with_claims(token, &json!({"aud": "another"}))),
        ("no expiry", forge.with_claims(token, &json!({"exp": null}))),
        ("not valid yet", forge.with_claims(token, &json!({"nbf": 4_000_000_000_i64}))),
        ("no key id", with_header(&|header| header.kid = None)),
        ("an unknown key", with_header(&|header| header.kid = Some("another".into()))),
        ("another type", with_header(&|header| header.typ = Some("JWT".into()))),
        ("a refresh token", acme.tokens.refresh_token.clone()),
        ("signed by the refresh key", signed_by_refresh_key),
        ("unsigned", unsigned),
        ("too long", "a".repeat(10_000)),
        ("empty", String::new()),
    ];
    for (what, token) in invalid_tokens {
        assert!(verifier.verify(&token).await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn no_token_is_valid_while_the_keys_cannot_be_read() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let relay = super::relay::Relay::start().await;
    let builder = tenantry_client::Client::builder(format!("http://{}", relay.addr))
        .deadline(std::time::Duration::from_millis(100));
    let verifier = Verifier::new(builder.connect().expect("a client"), "tenantry", "tenantry");
    assert!(verifier.verify(&acme.tokens.access_token).await.is_err());
}
