//! PermissionService.Check with an access token instead of a user id.

use serde_json::json;
use tenantry::proto::v1::{CheckRequest, DecisionReason, DisableUserRequest, LogoutRequest};
use tonic::Code;

use crate::harness::{Forge, TestApp, assert_refused};

fn check_request(token: &str) -> CheckRequest {
    CheckRequest {
        access_token: token.into(),
        permission: "doc:read".into(),
        ..CheckRequest::default()
    }
}

#[tokio::test]
async fn one_call_validates_the_token_and_decides() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let bob = acme.create_member("bob", &[]).await;
    let service = acme.create_member("service", &["permission:check"]).await;

    let granted = service.decide(check_request(&ada.tokens.access_token)).await;
    assert!(granted.allowed);
    assert_eq!(granted.reason(), DecisionReason::Granted);
    let denied = service.decide(check_request(&bob.tokens.access_token)).await;
    assert!(!denied.allowed);
    assert_eq!(denied.reason(), DecisionReason::NotGranted);
}

#[tokio::test]
async fn an_inactive_token_is_denied_without_details() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let signed_out_user = acme.create_member("gone", &["doc:read"]).await;
    signed_out_user.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let disabled_user = acme.create_member("disabled", &["doc:read"]).await;
    let request = DisableUserRequest { user_id: disabled_user.user_id.clone() };
    acme.users().disable_user(request).await.expect("disabled");
    let user_of_other_tenant = other.create_member("stranger", &["doc:read"]).await;
    let valid = &ada.tokens.access_token;
    let forge = app.forge();

    for (case, token) in [
        ("expired", forge.expired(valid)),
        ("session ended", signed_out_user.tokens.access_token),
        ("user disabled", disabled_user.tokens.access_token),
        ("another tenant's", user_of_other_tenant.tokens.access_token),
        ("another user's session", forge.with_claims(valid, &json!({ "sub": acme.user_id }))),
        ("moved to another tenant", forge.with_claims(valid, &json!({ "org": other.tenant_id }))),
        ("a refresh token", ada.tokens.refresh_token.clone()),
        ("tampered", Forge::tampered(valid)),
        ("no token", "garbage".into()),
    ] {
        let denied = acme.decide(check_request(&token)).await;
        assert!(!denied.allowed, "{case}");
        assert_eq!(denied.reason(), DecisionReason::TokenInvalid, "{case}");
    }
    assert!(acme.decide(check_request(valid)).await.allowed);
}

/// F09: decisions use the stored roles, not the claims of the token.
#[tokio::test]
async fn claims_of_a_token_do_not_change_decisions() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;

    for claims in [
        json!({ "scope": "doc:write" }),
        json!({ "scope": "", "scp": [], "permissions": [] }),
        json!({ "scope": "*:*", "permissions": ["*:*"], "roles": ["org_admin"] }),
        json!({ "roles": [] }),
        json!({ "roles": null }),
    ] {
        let token = app.forge().with_claims(&ada.tokens.access_token, &claims);
        let caller = ada.with_token(&token);
        for (permission, expected) in
            [("doc:read", true), ("doc:write", false), ("role:read", false)]
        {
            let request = CheckRequest { permission: permission.into(), ..check_request(&token) };
            assert_eq!(acme.decide(request).await.allowed, expected, "{claims}: {permission}");
            assert_eq!(caller.may(permission).await, expected, "{claims}: {permission}");
        }
        let result = caller.permissions().check(check_request(&acme.tokens.access_token)).await;
        assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}

#[tokio::test]
async fn without_the_permission_a_caller_may_check_only_its_own_token() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let bob = acme.create_member("bob", &[]).await;

    assert!(ada.decide(check_request(&ada.tokens.access_token)).await.allowed);
    let result = bob.permissions().check(check_request(&ada.tokens.access_token)).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_token_together_with_a_user_id_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let request =
        CheckRequest { user_id: acme.user_id.clone(), ..check_request(&acme.tokens.access_token) };
    let result = acme.permissions().check(request).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}
