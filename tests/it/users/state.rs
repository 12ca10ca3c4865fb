//! UserService: `DisableUser`, `EnableUser` and `DeleteUser`

use tenantry::proto::v1::{
    CheckRequest, DeleteUserRequest, DisableUserRequest, EnableUserRequest, GetUserRequest,
    LoginRequest, RefreshRequest, RoleLevel, User, UserState, WhoAmIRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, unknown_id};

async fn disable(client: &Client, user: &str) -> Result<User, Status> {
    let request = DisableUserRequest { user_id: user.into() };
    let reply = client.users().disable_user(request).await?;
    Ok(reply.into_inner().user.expect("the user"))
}

async fn enable(client: &Client, user: &str) -> Result<User, Status> {
    let request = EnableUserRequest { user_id: user.into() };
    let reply = client.users().enable_user(request).await?;
    Ok(reply.into_inner().user.expect("the user"))
}

async fn delete(client: &Client, user: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteUserRequest { user_id: user.into(), etag: etag.into() };
    client.users().delete_user(request).await.map(drop)
}

fn assert_status(status: &Status, code: Code, reason: &str) {
    assert_eq!((status.code(), crate::harness::reason(status).as_str()), (code, reason));
}

/// Asserts that the client's tokens and password no longer work.
async fn assert_locked_out(app: &TestApp, client: &Client) {
    let result = client.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let request = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let result = client.permissions().check(request).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let refresh_token = client.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let result = app.anonymous().auth().refresh(request).await;
    assert_eq!(result.expect_err("refused").code(), Code::Unauthenticated);
    let request = LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        ..LoginRequest::default()
    };
    let result = app.anonymous().auth().login(request).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

/// B08: disabling the user again changes and records nothing.
#[tokio::test]
async fn disabling_a_user_ends_its_sessions() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;

    let user = disable(&acme, &ada.user_id).await.expect("disabled");
    assert_eq!(user.state(), UserState::Disabled);
    assert_locked_out(&app, &ada).await;
    let repeated_user = disable(&acme, &ada.user_id).await.expect("still disabled");
    assert_eq!(repeated_user, user);
    assert_eq!(app.audit_events("user_disabled").await.len(), 1);
}

/// B08: enabling a user restores no session.
#[tokio::test]
async fn an_enabled_user_signs_in_again_but_old_sessions_stay_ended() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    disable(&acme, &ada.user_id).await.expect("disabled");

    let user = enable(&acme, &ada.user_id).await.expect("enabled");
    assert_eq!(user.state(), UserState::Active);
    assert_eq!(enable(&acme, &ada.user_id).await.expect("still enabled"), user);
    let result = ada.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let new_client = app.anonymous().login(&acme.slug, &ada.email, PASSWORD).await;
    assert!(new_client.may("doc:read").await, "the user still has the roles");
}

#[tokio::test]
async fn a_deletion_removes_all_data_of_a_user() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;

    delete(&acme, &ada.user_id, "").await.expect("deleted");
    assert_locked_out(&app, &ada).await;
    for sql in [
        "select count(*) from users where user_id = $1",
        "select count(*) from credentials where user_id = $1",
        "select count(*) from sessions where user_id = $1",
        "select count(*) from role_assignments where user_id = $1",
    ] {
        assert_eq!(app.count(sql, &ada.user_id).await, 0, "{sql}");
    }
    let request = GetUserRequest { user_id: ada.user_id.clone() };
    assert_refused(acme.users().get_user(request).await, Code::NotFound, "NOT_FOUND");
    let status = delete(&acme, &ada.user_id, "").await.expect_err("the user is deleted");
    assert_status(&status, Code::NotFound, "NOT_FOUND");
    let event = &app.audit_events("user_deleted").await[0];
    assert_eq!(event.target_id.map(|id| id.to_string()), Some(ada.user_id.clone()));

    let new_user = acme.create_user(&ada.email).await;
    assert!(new_user != ada.user_id && !acme.user_may(&new_user, "doc:read").await);
}

#[tokio::test]
async fn a_stale_etag_prevents_the_deletion() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;

    let status = delete(&acme, &ada, "v0").await.expect_err("the etag is stale");
    assert_status(&status, Code::Aborted, "ETAG_MISMATCH");
    let etag = disable(&acme, &ada).await.expect("disabled").etag;
    delete(&acme, &ada, &etag).await.expect("deleted");
}

/// F04: the caller can neither disable, enable nor delete a user of a higher level.
/// D02: a user of another tenant gets the same response as an unknown user.
#[tokio::test]
async fn a_caller_cannot_change_a_user_of_a_higher_level_or_of_another_tenant() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &["user:disable", "user:delete"]).await;
    let boss = acme.create_user("boss@acme.test").await;
    let higher_role = acme.create_role("high", RoleLevel::Manager, &[]).await;
    acme.assign(&boss, &higher_role).await;

    for (client, user, code, reason) in [
        (&ada, &boss, Code::PermissionDenied, "LEVEL_TOO_HIGH"),
        (&ada, &acme.user_id, Code::PermissionDenied, "LEVEL_TOO_HIGH"),
        (&acme, &other.user_id, Code::NotFound, "NOT_FOUND"),
        (&acme, &unknown_id(), Code::NotFound, "NOT_FOUND"),
    ] {
        assert_status(&disable(client, user).await.expect_err("refused"), code, reason);
        assert_status(&enable(client, user).await.expect_err("refused"), code, reason);
        assert_status(&delete(client, user, "").await.expect_err("refused"), code, reason);
    }
    let peer = acme.create_member("peer", &["user:delete"]).await;
    disable(&ada, &peer.user_id).await.expect("a user of the same level can be disabled");
}
