//! A caller cannot change the email, state or sessions of a user with more rights.

use tenantry::proto::v1::{
    DisableUserRequest, RevokeAllSessionsRequest, RevokeSessionRequest, RoleLevel,
    UpdateUserRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{PASSWORD, TestApp, refused, until};

/// N11: the built-in role `manager` allows a change of email only for users without further
/// rights.
#[tokio::test]
async fn a_manager_cannot_change_the_email_of_a_user_that_holds_more() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let manager = acme.member("manager", &[]).await;
    acme.assign(&manager.user_id, &acme.system_role("manager").await).await;
    let same_level = acme.create_user("pays@acme.test").await;
    let pays = acme.create_role("pays", RoleLevel::Manager, &["invoice:pay"]).await;
    acme.assign_within(&same_level, &pays, serde_json::json!({ "p": "x" })).await;
    let member = acme.create_user("member@acme.test").await;
    acme.assign(&member, &acme.system_role("member").await).await;

    let change = |user_id: &str, email: &str| UpdateUserRequest {
        user_id: user_id.into(),
        email: Some(email.into()),
        ..UpdateUserRequest::default()
    };
    for (user, reason) in [(&acme.user_id, "LEVEL_TOO_HIGH"), (&same_level, "GRANT_NOT_HELD")] {
        let refusal = manager.users().update_user(change(user, "mine@acme.test")).await;
        refused(refusal, Code::PermissionDenied, reason);
    }
    app.anonymous().login("acme", &acme.email, PASSWORD).await;
    manager
        .users()
        .update_user(change(&member, "new@acme.test"))
        .await
        .expect("of a user that holds less");
    app.anonymous().login("acme", "new@acme.test", PASSWORD).await;
}

/// N11: a caller cannot give or use more rights than it has.
#[tokio::test]
async fn a_member_cannot_end_an_administrators_session() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["session:revoke"]).await;
    let bob = acme.member("bob", &[]).await;
    let one = |session: &str| RevokeSessionRequest { session_id: session.into() };
    let all = |user: &str| RevokeAllSessionsRequest { user_id: user.into() };

    let refusal = ada.sessions().revoke_session(one(&acme.tokens.session_id)).await;
    refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    let refusal = ada.sessions().revoke_all_sessions(all(&acme.user_id)).await;
    refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("still signed in");

    ada.sessions()
        .revoke_session(one(&bob.tokens.session_id))
        .await
        .expect("of a user that holds less");
    ada.sessions().revoke_all_sessions(all("")).await.expect("one's own sessions");
    for ended in [&ada, &bob] {
        let me = ended.auth().who_am_i(WhoAmIRequest {}).await;
        refused(me, Code::Unauthenticated, "TOKEN_INVALID");
    }
}

/// N11: a call applies a promotion that commits while the call waits.
#[tokio::test]
async fn a_promotion_that_commits_meanwhile_is_seen() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["user:disable"]).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    let admin = acme.system_role("org_admin").await;

    let mut owner = app.owner().await;
    let begin = format!(
        "begin;
         select from subjects where subject_id = '{bob}' for no key update;
         insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
         values ('{}', gen_random_uuid(), '{bob}', '{admin}');",
        acme.tenant_id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut owner).await.expect("a promotion");
    let request = DisableUserRequest { user_id: bob.clone() };
    let disabling = tokio::spawn({
        let ada = ada.clone();
        async move { ada.users().disable_user(request).await }
    });
    let waits = "select count(*) from pg_stat_activity
                 where wait_event_type = 'Lock' and datname = current_database()";
    until(10, || async {
        let mut other = app.owner().await;
        sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut other).await.expect("a count") > 0
    })
    .await;
    sqlx::raw_sql("commit").execute(&mut owner).await.expect("promoted");
    let refusal = disabling.await.expect("no panic");
    refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
}

/// Platform staff keep the power that their level gives over other tenants' users.
#[tokio::test]
async fn platform_staff_take_by_level_but_use_only_what_they_hold() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    let permissions = ["tenant:act", "user:disable", "user:update", "session:revoke"];
    let support = root.create_role("support", RoleLevel::OrgAdmin, &permissions).await;
    let user = root.create_user_without_password("support@platform.test").await;
    root.assign(&user, &support).await;
    let support = app.sign_in_as(&user, &root).await.with("x-tenant-id", &acme.tenant_id);

    let second = acme.create_user("second@acme.test").await;
    acme.assign(&second, &acme.system_role("org_admin").await).await;
    let request = UpdateUserRequest {
        user_id: second.clone(),
        email: Some("mine@acme.test".into()),
        ..UpdateUserRequest::default()
    };
    let refusal = support.users().update_user(request.clone()).await;
    refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
    support.users().disable_user(DisableUserRequest { user_id: second }).await.expect("disabled");
    let root = root.with("x-tenant-id", &acme.tenant_id);
    root.users().update_user(request).await.expect("by a caller that holds everything");
}

/// A token for a password reset ends when the email changes.
#[tokio::test]
async fn a_changed_email_ends_the_reset_tokens_of_the_old_address() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let bob = acme.create_user("bob@acme.test").await;
    let token = app.reset_token(&acme.tenant_id, &bob).await;
    let request = UpdateUserRequest {
        user_id: bob,
        email: Some("new@acme.test".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request).await.expect("changed");
    let request = tenantry::proto::v1::ResetPasswordRequest {
        token,
        new_password: "another horse battery staple".into(),
    };
    let late = app.anonymous().auth().reset_password(request).await;
    refused(late, Code::Unauthenticated, "TOKEN_INVALID");
}
