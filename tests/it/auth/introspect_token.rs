//! AuthService.IntrospectToken

use tenantry::proto::v1::{
    DisableUserRequest, IntrospectTokenRequest, IntrospectTokenResponse, LogoutRequest,
    RefreshRequest, RefreshResponse,
};
use tonic::Code;

use crate::harness::{Client, Forge, TestApp, assert_refused};

async fn introspect(client: &Client, token: &str) -> IntrospectTokenResponse {
    let request = IntrospectTokenRequest { token: token.into() };
    client.auth().introspect_token(request).await.expect("a response").into_inner()
}

async fn refresh(client: &Client) -> RefreshResponse {
    let refresh_token = client.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    client.auth().refresh(request).await.expect("refreshed").into_inner()
}

#[tokio::test]
async fn an_active_token_is_described_by_its_claims() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;

    for (token, kind) in
        [(&ada.tokens.access_token, "access_token"), (&ada.tokens.refresh_token, "refresh_token")]
    {
        let (_, claims) = Forge::read(token);
        let response = introspect(&acme, token).await;
        let roles = if kind == "access_token" { vec!["ada".to_owned()] } else { vec![] };
        let expected = IntrospectTokenResponse {
            active: true,
            sub: ada.user_id.clone(),
            org: acme.tenant_id.clone(),
            sid: ada.tokens.session_id.clone(),
            roles,
            exp: claims["exp"].as_i64().expect("exp"),
            iat: claims["iat"].as_i64().expect("iat"),
            jti: claims["jti"].as_str().expect("jti").into(),
            sub_type: "user".into(),
            token_type: kind.into(),
        };
        assert_eq!(response, expected);
        assert_eq!(
            introspect(&ada, token).await,
            expected,
            "a user's own token needs no permission"
        );
    }
}

#[tokio::test]
async fn only_the_newest_refresh_token_is_active() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let new_tokens = refresh(&acme).await;
    let response_for_used_token = introspect(&acme, &acme.tokens.refresh_token).await;
    assert_eq!(response_for_used_token, IntrospectTokenResponse::default());
    assert!(introspect(&acme, &new_tokens.refresh_token).await.active);
    // Introspection does not use the token.
    assert!(introspect(&acme, &new_tokens.refresh_token).await.active);
    let request =
        RefreshRequest { refresh_token: new_tokens.refresh_token, ..RefreshRequest::default() };
    acme.auth().refresh(request).await.expect("the token was not used");
}

#[tokio::test]
async fn introspection_reveals_nothing_about_an_inactive_token() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &[]).await;
    let signed_out = acme.create_member("signed-out", &[]).await;
    signed_out.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let disabled = acme.create_member("disabled", &[]).await;
    assert!(
        introspect(&acme, &disabled.tokens.access_token).await.active,
        "active, and now cached"
    );
    let request = DisableUserRequest { user_id: disabled.user_id.clone() };
    acme.users().disable_user(request).await.expect("disabled");
    let access = &acme.tokens.access_token;
    let tampered = Forge::tampered(access);

    for (case, caller, token) in [
        ("revoked", &acme, &signed_out.tokens.access_token),
        ("revoked", &acme, &signed_out.tokens.refresh_token),
        ("disabled user's", &acme, &disabled.tokens.access_token),
        ("disabled user's", &acme, &disabled.tokens.refresh_token),
        ("another tenant's", &acme, &other.tokens.access_token),
        ("another tenant's", &acme, &other.tokens.refresh_token),
        ("another user's, without the permission", &ada, access),
        ("another user's, without the permission", &ada, &acme.tokens.refresh_token),
        ("expired", &acme, &app.forge().expired(access)),
        ("tampered", &acme, &tampered),
        ("garbage", &acme, &"garbage".to_owned()),
    ] {
        let response = introspect(caller, token).await;
        assert_eq!(response, IntrospectTokenResponse::default(), "{case}");
    }
}

#[tokio::test]
async fn a_token_must_be_present_and_not_too_long() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    // A token has at most 8192 bytes.
    for token in [String::new(), "x".repeat(8193)] {
        let result = acme.auth().introspect_token(IntrospectTokenRequest { token }).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
