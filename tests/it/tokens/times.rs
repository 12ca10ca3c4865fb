//! Validity times of tokens: the leeway for clocks is exactly 30 seconds.

use serde_json::{Value, json};
use tenantry::{clock, proto::v1::WhoAmIRequest};
use tonic::Code;

use crate::harness::{Client, TestApp, reason};

/// Calls the server with a token whose claims are calculated from the current second, and returns
/// the status code. Repeats the call if the second changed meanwhile, so that the limits are exact.
async fn response_code(app: &TestApp, client: &Client, claims: impl Fn(i64) -> Value) -> Code {
    loop {
        let now = clock::now().unix_timestamp();
        let token = app.forge().with_claims(&client.tokens.access_token, &claims(now));
        let reply = client.with_token(&token).auth().who_am_i(WhoAmIRequest {}).await;
        if clock::now().unix_timestamp() != now {
            continue;
        }
        return match reply {
            Ok(_) => Code::Ok,
            Err(status) => {
                assert_eq!(reason(&status), "TOKEN_INVALID");
                status.code()
            }
        };
    }
}

/// A06: the leeway for wrong clocks is fixed.
#[tokio::test]
async fn the_leeway_is_exactly_thirty_seconds() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (accepted, refused) = (Code::Ok, Code::Unauthenticated);

    let exp = |offset: i64| move |now: i64| json!({ "exp": now + offset });
    for (offset, expected) in
        [(-3600, refused), (-31, refused), (-30, accepted), (-29, accepted), (0, accepted)]
    {
        assert_eq!(response_code(&app, &acme, exp(offset)).await, expected, "exp {offset}");
    }
    let nbf = |offset: i64| move |now: i64| json!({ "nbf": now + offset });
    for (offset, expected) in
        [(3600, refused), (31, refused), (30, accepted), (29, accepted), (-3600, accepted)]
    {
        assert_eq!(response_code(&app, &acme, nbf(offset)).await, expected, "nbf {offset}");
    }
}

#[tokio::test]
async fn a_token_issued_in_the_future_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let iat = |offset: i64| move |now: i64| json!({ "iat": now + offset });
    for (offset, expected) in [(3600, Code::Unauthenticated), (31, Code::Unauthenticated)] {
        assert_eq!(response_code(&app, &acme, iat(offset)).await, expected, "iat {offset}");
    }
    for offset in [30, 0, -3600] {
        assert_eq!(response_code(&app, &acme, iat(offset)).await, Code::Ok, "iat {offset}");
    }
}

/// Every method that reads a token refuses an expired token.
#[tokio::test]
async fn an_expired_token_is_refused_everywhere() {
    use tenantry::proto::v1::{CheckRequest, DecisionReason, IntrospectTokenRequest};
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let token = app.forge().expired(&acme.tokens.access_token);

    super::assert_token_refused(&acme, "an expired token", &token).await;
    let request = IntrospectTokenRequest { token: token.clone() };
    let introspection =
        acme.auth().introspect_token(request).await.expect("an answer").into_inner();
    assert_eq!(introspection, tenantry::proto::v1::IntrospectTokenResponse::default());
    let request = CheckRequest {
        permission: "user:read".into(),
        access_token: token,
        ..CheckRequest::default()
    };
    let decision = acme.permissions().check(request).await.expect("an answer").into_inner();
    assert_eq!((decision.allowed, decision.reason()), (false, DecisionReason::TokenInvalid));
}
