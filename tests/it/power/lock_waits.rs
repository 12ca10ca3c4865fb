//! The rights of a caller are checked again after the call has its locks, because the call may have
//! waited for the locks.

use std::future::Future;

use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateServiceAccountRequest, CreateTenantRequest,
    DeleteTenantRequest, DisableUserRequest, RevokeAllSessionsRequest, RoleLevel,
    UnassignRoleRequest, UpdateTenantRequest, UpdateUserRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, TestApp, assert_refused, reason, struct_of};

/// Makes a call that waits for a locked row, and makes a change while the call waits. Returns the
/// result of the call. `lock` is an SQL query for the row.
async fn change_during_call<T: Send + 'static>(
    app: &TestApp,
    lock: String,
    call: impl Future<Output = Result<T, Status>> + Send + 'static,
    change: impl Future<Output = ()>,
) -> Result<T, Status> {
    let mut owner_connection = app.owner_connection().await;
    let begin = format!("begin; {lock} for no key update;");
    sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut owner_connection).await.expect("locked");
    let call = tokio::spawn(call);
    app.wait_until_lock_wait().await;
    change.await;
    sqlx::raw_sql("commit").execute(&mut owner_connection).await.expect("unlocked");
    call.await.expect("no panic")
}

/// A query for the row of a subject.
fn select_subject(id: &str) -> String {
    format!("select from subjects where subject_id = '{id}'")
}

async fn revoke_sessions(caller: &Client, user_id: &str) {
    let request = RevokeAllSessionsRequest { user_id: user_id.into() };
    caller.sessions().revoke_all_sessions(request).await.expect("the sessions are revoked");
}

async fn disable(caller: &Client, user_id: &str) {
    let request = DisableUserRequest { user_id: user_id.into() };
    caller.users().disable_user(request).await.expect("disabled");
}

/// N11: the caller loses its role, its session or its account.
#[tokio::test]
async fn a_caller_that_loses_its_rights_while_it_waits_assigns_nothing() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let viewer = acme.system_role("viewer").await;
    let assigner = acme.create_role("assigner", RoleLevel::Member, &["role:assign"]).await;
    for (n, expected) in ["PERMISSION_MISSING", "TOKEN_INVALID", "TOKEN_INVALID"].iter().enumerate()
    {
        let ada = acme.create_member(&format!("ada-{n}"), &["tenant:read"]).await;
        acme.assign(&ada.user_id, &assigner).await;
        let bob = acme.create_user_without_password(&format!("bob-{n}@acme.test")).await;
        let request = AssignRoleRequest {
            user_id: bob.clone(),
            role_id: viewer.clone(),
            ..AssignRoleRequest::default()
        };
        let call = {
            let ada = ada.clone();
            async move { ada.roles().assign_role(request).await }
        };
        let change = async {
            match n {
                0 => acme.unassign(&ada.user_id, &assigner).await,
                1 => revoke_sessions(&acme, &ada.user_id).await,
                _ => disable(&acme, &ada.user_id).await,
            }
        };
        let refusal = Box::pin(change_during_call(&app, select_subject(&bob), call, change)).await;
        assert_eq!(reason(&refusal.expect_err("the caller lost its right")), *expected, "{n}");
        let count_assignments = "select count(*) from role_assignments where user_id = $1";
        assert_eq!(app.count(count_assignments, &bob).await, 0);
    }
}

/// N11: the session of a service account is its key.
#[tokio::test]
async fn a_key_that_is_revoked_while_its_call_waits_has_no_effect() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("hr", &["user:disable"]).await;
    let created_key = acme.create_api_key(&account).await;
    let hr = app.anonymous().exchange(&created_key.secret).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    let call = {
        let request = DisableUserRequest { user_id: bob.clone() };
        async move { hr.users().disable_user(request).await }
    };
    let key_id = created_key.api_key.expect("a key").id;
    let refusal = Box::pin(change_during_call(
        &app,
        select_subject(&bob),
        call,
        acme.revoke_api_key(&key_id),
    ))
    .await;
    assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
}

/// N11: the rule also applies to users of the platform tenant that act in another tenant.
#[tokio::test]
async fn platform_users_that_lose_their_rights_while_they_wait_are_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let permissions = ["role:assign", "tenant:update", "tenant:read"];
    let manager =
        platform_admin.create_role("tenant manager", RoleLevel::OrgAdmin, &permissions).await;
    let actor =
        platform_admin.create_role("tenant actor", RoleLevel::OrgAdmin, &["tenant:act"]).await;
    let role = acme.create_role("some", RoleLevel::Member, &["doc:read"]).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    acme.assign(&bob, &role).await;
    let lock = format!("select from tenants where tenant_id = '{}'", acme.tenant_id);
    let expected = ["TOKEN_INVALID", "TENANT_MISMATCH", "PERMISSION_MISSING"];
    for (n, expected) in expected.iter().enumerate() {
        let name = format!("support-{n}@platform.test");
        let user = platform_admin.create_user_without_password(&name).await;
        platform_admin.assign(&user, &manager).await;
        platform_admin.assign(&user, &actor).await;
        let support = app.create_session(&user, &platform_admin).await;
        let support_in_acme = support.with_metadata("x-tenant-id", &acme.tenant_id);
        let request = UnassignRoleRequest {
            user_id: bob.clone(),
            role_id: role.clone(),
            ..UnassignRoleRequest::default()
        };
        let call = async move { support_in_acme.roles().unassign_role(request).await };
        let change = async {
            match n {
                0 => disable(&platform_admin, &user).await,
                1 => platform_admin.unassign(&user, &actor).await,
                _ => platform_admin.unassign(&user, &manager).await,
            }
        };
        let refusal = Box::pin(change_during_call(&app, lock.clone(), call, change)).await;
        assert_eq!(reason(&refusal.expect_err("the caller lost its right")), *expected, "{n}");
        // A call that has the tenant in the request, not in the metadata.
        let request = UpdateTenantRequest {
            tenant: "acme".into(),
            name: Some("Taken".into()),
            ..UpdateTenantRequest::default()
        };
        support.tenants().update_tenant(request).await.expect_err("the caller lost its right");
    }
    let count_assignments = "select count(*) from role_assignments where user_id = $1";
    assert_eq!(app.count(count_assignments, &bob).await, 1);
}

/// N11: a user needs no permission to change its own data.
#[tokio::test]
async fn a_user_that_loses_its_permission_while_it_waits_may_still_change_its_own_data() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    for (n, is_own) in [true, false].into_iter().enumerate() {
        let name = format!("ada-{n}");
        let ada = acme.create_member(&name, &["user:update"]).await;
        let role = acme.role_id(&name).await;
        let target = if is_own { &ada.user_id } else { &bob };
        let request = UpdateUserRequest {
            user_id: target.clone(),
            display_name: Some("Another".into()),
            ..UpdateUserRequest::default()
        };
        let call = {
            let ada = ada.clone();
            async move { ada.users().update_user(request).await }
        };
        let lock = format!("select from users where user_id = '{target}'");
        let reply =
            Box::pin(change_during_call(&app, lock, call, acme.unassign(&ada.user_id, &role)))
                .await;
        if is_own {
            reply.expect("a user may change its own name");
        } else {
            assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
        }
    }
}

/// N11: the rule also applies to calls that do not affect the grants of others.
#[tokio::test]
async fn a_caller_that_loses_its_session_while_it_waits_creates_and_deletes_nothing() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let lock = format!("select from tenants where tenant_id = '{}'", acme.tenant_id);

    let ada = acme.create_member("ada", &["role:create", "service_account:create"]).await;
    let call = {
        let ada = ada.clone();
        let request = CreateRoleRequest {
            name: "late".into(),
            level: RoleLevel::Viewer.into(),
            ..CreateRoleRequest::default()
        };
        async move { ada.roles().create_role(request).await }
    };
    let change = revoke_sessions(&acme, &ada.user_id);
    let refusal = Box::pin(change_during_call(&app, lock.clone(), call, change)).await;
    assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");

    let ada = app.create_session(&ada.user_id, &acme).await;
    let call = {
        let ada = ada.clone();
        let request = CreateServiceAccountRequest { name: "late".into(), ..Default::default() };
        async move { ada.service_accounts().create_service_account(request).await }
    };
    let change = revoke_sessions(&acme, &ada.user_id);
    let refusal = Box::pin(change_during_call(&app, lock.clone(), call, change)).await;
    assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");

    let deleter =
        platform_admin.create_role("deleter", RoleLevel::OrgAdmin, &["tenant:delete"]).await;
    let user = platform_admin.create_user_without_password("support@platform.test").await;
    platform_admin.assign(&user, &deleter).await;
    let support = app.create_session(&user, &platform_admin).await;
    let request = DeleteTenantRequest { tenant: acme.slug.clone(), ..Default::default() };
    let call = {
        let (support, request) = (support.clone(), request.clone());
        async move { support.tenants().delete_tenant(request).await }
    };
    let change = disable(&platform_admin, &user);
    let refusal = Box::pin(change_during_call(&app, lock, call, change)).await;
    assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
    assert!(acme.may("doc:read").await, "the tenant still exists");
}

/// N11: a tenant with self-registration gives its new members a role, so the creator of the tenant
/// must hold the permissions of that role.
#[tokio::test]
async fn only_a_caller_with_the_rights_of_a_member_can_create_a_tenant_with_self_registration() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let creator =
        platform_admin.create_role("creator", RoleLevel::OrgAdmin, &["tenant:create"]).await;
    let user = platform_admin.create_user_without_password("support@platform.test").await;
    platform_admin.assign(&user, &creator).await;
    let support = app.create_session(&user, &platform_admin).await;
    let request = |self_registration: bool| CreateTenantRequest {
        name: format!("Open {self_registration}"),
        settings: struct_of(serde_json::json!({ "self_registration": self_registration })),
        ..CreateTenantRequest::default()
    };
    let refusal = support.tenants().create_tenant(request(true)).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
    support.tenants().create_tenant(request(false)).await.expect("created");
    platform_admin.tenants().create_tenant(request(true)).await.expect("created");
}
