//! A caller cannot change the email, state or sessions of a user with more rights.

use tenantry::proto::v1::{
    DisableUserRequest, RevokeAllSessionsRequest, RevokeSessionRequest, RoleLevel,
    UpdateUserRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{PASSWORD, TestApp, assert_refused};

/// N11: with the built-in role `manager`, a caller can change the email only of users with no more
/// rights than the role has.
#[tokio::test]
async fn a_manager_cannot_change_the_email_of_a_user_that_holds_more() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let manager = acme.create_member("manager", &[]).await;
    acme.assign(&manager.user_id, &acme.system_role("manager").await).await;
    let same_level = acme.create_user("pays@acme.test").await;
    let payer = acme.create_role("payer", RoleLevel::Manager, &["invoice:pay"]).await;
    acme.assign_with_scope(&same_level, &payer, serde_json::json!({ "p": "x" })).await;
    let member = acme.create_user("member@acme.test").await;
    acme.assign(&member, &acme.system_role("member").await).await;

    let change = |user_id: &str, email: &str| UpdateUserRequest {
        user_id: user_id.into(),
        email: Some(email.into()),
        ..UpdateUserRequest::default()
    };
    for (user, reason) in [(&acme.user_id, "LEVEL_TOO_HIGH"), (&same_level, "GRANT_NOT_HELD")] {
        let refusal = manager.users().update_user(change(user, "mine@acme.test")).await;
        assert_refused(refusal, Code::PermissionDenied, reason);
    }
    app.anonymous().login("acme", &acme.email, PASSWORD).await;
    manager
        .users()
        .update_user(change(&member, "new@acme.test"))
        .await
        .expect("the user holds fewer rights");
    app.anonymous().login("acme", "new@acme.test", PASSWORD).await;
}

/// N11: the permission `session:revoke` is enough only for a user with no more rights.
#[tokio::test]
async fn a_member_cannot_end_an_administrators_session() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["session:revoke"]).await;
    let bob = acme.create_member("bob", &[]).await;
    let revoke_one = |session: &str| RevokeSessionRequest { session_id: session.into() };
    let revoke_all = |user: &str| RevokeAllSessionsRequest { user_id: user.into() };

    let refusal = ada.sessions().revoke_session(revoke_one(&acme.tokens.session_id)).await;
    assert_refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    let refusal = ada.sessions().revoke_all_sessions(revoke_all(&acme.user_id)).await;
    assert_refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("still signed in");

    ada.sessions()
        .revoke_session(revoke_one(&bob.tokens.session_id))
        .await
        .expect("the user holds fewer rights");
    ada.sessions().revoke_all_sessions(revoke_all("")).await.expect("one's own sessions");
    for signed_out in [&ada, &bob] {
        let me = signed_out.auth().who_am_i(WhoAmIRequest {}).await;
        assert_refused(me, Code::Unauthenticated, "TOKEN_INVALID");
    }
}

/// N11: a call that waits for a lock reads a promotion that commits meanwhile.
#[tokio::test]
async fn a_promotion_that_commits_while_a_call_waits_applies_to_the_call() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["user:disable"]).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    let admin = acme.system_role("org_admin").await;

    let mut owner_connection = app.owner_connection().await;
    let promote = format!(
        "begin;
         select from subjects where subject_id = '{bob}' for no key update;
         insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
         values ('{}', gen_random_uuid(), '{bob}', '{admin}');",
        acme.tenant_id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(promote))
        .execute(&mut owner_connection)
        .await
        .expect("the user is promoted");
    let request = DisableUserRequest { user_id: bob.clone() };
    let call = tokio::spawn({
        let ada = ada.clone();
        async move { ada.users().disable_user(request).await }
    });
    app.wait_until_lock_wait().await;
    sqlx::raw_sql("commit").execute(&mut owner_connection).await.expect("the promotion commits");
    let refusal = call.await.expect("no panic");
    assert_refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
}

/// In other tenants, users of the platform tenant may disable a user because of their level. To
/// change an email, they must also hold all rights of the user.
#[tokio::test]
async fn platform_users_disable_by_level_but_change_emails_only_with_all_rights() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let permissions = ["tenant:act", "user:disable", "user:update", "session:revoke"];
    let support_role =
        platform_admin.create_role("support", RoleLevel::OrgAdmin, &permissions).await;
    let support_id = platform_admin.create_user_without_password("support@platform.test").await;
    platform_admin.assign(&support_id, &support_role).await;
    let support = app
        .create_session(&support_id, &platform_admin)
        .await
        .with_metadata("x-tenant-id", &acme.tenant_id);

    let second_admin = acme.create_user("second@acme.test").await;
    acme.assign(&second_admin, &acme.system_role("org_admin").await).await;
    let request = UpdateUserRequest {
        user_id: second_admin.clone(),
        email: Some("mine@acme.test".into()),
        ..UpdateUserRequest::default()
    };
    let refusal = support.users().update_user(request.clone()).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
    support
        .users()
        .disable_user(DisableUserRequest { user_id: second_admin })
        .await
        .expect("disabled");
    let platform_admin_in_acme = platform_admin.with_metadata("x-tenant-id", &acme.tenant_id);
    platform_admin_in_acme.users().update_user(request).await.expect("the caller holds all rights");
}

/// A token for a password reset becomes invalid when the email changes.
#[tokio::test]
async fn a_changed_email_makes_reset_tokens_of_the_old_address_invalid() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let bob = acme.create_user("bob@acme.test").await;
    let token = app.create_reset_token(&acme.tenant_id, &bob).await;
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
    let result = app.anonymous().auth().reset_password(request).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
}
