//! The rights of a caller are checked again after the call has its locks, because the call may have
//! waited for the locks.

use std::future::Future;

use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateServiceAccountRequest, CreateTenantRequest,
    DeleteTenantRequest, DisableUserRequest, RevokeAllSessionsRequest, RoleLevel,
    UnassignRoleRequest, UpdateTenantRequest, UpdateUserRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, TestApp, reason, refused, struct_of, until};

/// Runs `act`, a call that waits for the lock of a row. Runs `happens` while the call waits.
/// Returns the result of the call.
async fn meanwhile<T: Send + 'static>(
    app: &TestApp,
    lock: String,
    act: impl Future<Output = Result<T, Status>> + Send + 'static,
    happens: impl Future<Output = ()>,
) -> Result<T, Status> {
    let mut owner = app.owner().await;
    let begin = format!("begin; {lock} for no key update;");
    sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut owner).await.expect("locked");
    let act = tokio::spawn(act);
    let count_waiting = "select count(*) from pg_stat_activity
                 where wait_event_type = 'Lock' and datname = current_database()";
    until(10, || async {
        let mut other = app.owner().await;
        sqlx::query_scalar::<_, i64>(count_waiting).fetch_one(&mut other).await.expect("a count")
            > 0
    })
    .await;
    happens.await;
    sqlx::raw_sql("commit").execute(&mut owner).await.expect("unlocked");
    act.await.expect("no panic")
}

fn the_subject(id: &str) -> String {
    format!("select from subjects where subject_id = '{id}'")
}

async fn revoke_sessions(by: &Client, user_id: &str) {
    let request = RevokeAllSessionsRequest { user_id: user_id.into() };
    by.sessions().revoke_all_sessions(request).await.expect("ended");
}

async fn disable(by: &Client, user_id: &str) {
    let request = DisableUserRequest { user_id: user_id.into() };
    by.users().disable_user(request).await.expect("disabled");
}

/// N11: a caller cannot give or use more rights than it has.
#[tokio::test]
async fn an_assigner_that_loses_its_permission_or_session_meanwhile_assigns_nothing() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let viewer = acme.system_role("viewer").await;
    let gives = acme.create_role("gives", RoleLevel::Member, &["role:assign"]).await;
    for (n, expected) in ["PERMISSION_MISSING", "TOKEN_INVALID", "TOKEN_INVALID"].iter().enumerate()
    {
        let ada = acme.member(&format!("ada-{n}"), &["tenant:read"]).await;
        acme.assign(&ada.user_id, &gives).await;
        let bob = acme.create_user_without_password(&format!("bob-{n}@acme.test")).await;
        let request = AssignRoleRequest {
            user_id: bob.clone(),
            role_id: viewer.clone(),
            ..AssignRoleRequest::default()
        };
        let act = {
            let ada = ada.clone();
            async move { ada.roles().assign_role(request).await }
        };
        let happens = async {
            match n {
                0 => acme.unassign(&ada.user_id, &gives).await,
                1 => revoke_sessions(&acme, &ada.user_id).await,
                _ => disable(&acme, &ada.user_id).await,
            }
        };
        let refusal = Box::pin(meanwhile(&app, the_subject(&bob), act, happens)).await;
        assert_eq!(reason(&refusal.expect_err("the caller lost its right")), *expected, "{n}");
        let has = "select count(*) from role_assignments where user_id = $1";
        assert_eq!(app.count(has, &bob).await, 0);
    }
}

/// N11: the session of a service account is its key.
#[tokio::test]
async fn a_key_revoked_meanwhile_has_no_effect() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("hr", &["user:disable"]).await;
    let made = acme.create_api_key(&account).await;
    let hr = app.anonymous().exchange(&made.secret).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    let act = {
        let request = DisableUserRequest { user_id: bob.clone() };
        async move { hr.users().disable_user(request).await }
    };
    let key = made.api_key.expect("a key").id;
    let refusal =
        Box::pin(meanwhile(&app, the_subject(&bob), act, acme.revoke_api_key(&key))).await;
    refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
}

/// N11: platform staff that act in another tenant.
#[tokio::test]
async fn staff_that_lose_their_rights_meanwhile_are_refused() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    let permissions = ["role:assign", "tenant:update", "tenant:read"];
    let works = root.create_role("works", RoleLevel::OrgAdmin, &permissions).await;
    let across = root.create_role("across", RoleLevel::OrgAdmin, &["tenant:act"]).await;
    let role = acme.create_role("some", RoleLevel::Member, &["doc:read"]).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    acme.assign(&bob, &role).await;
    let lock = format!("select from tenants where tenant_id = '{}'", acme.tenant_id);
    let expected = ["TOKEN_INVALID", "TENANT_MISMATCH", "PERMISSION_MISSING"];
    for (n, expected) in expected.iter().enumerate() {
        let name = format!("sup-{n}@platform.test");
        let user = root.create_user_without_password(&name).await;
        root.assign(&user, &works).await;
        root.assign(&user, &across).await;
        let home = app.sign_in_as(&user, &root).await;
        let sup = home.with("x-tenant-id", &acme.tenant_id);
        let request = UnassignRoleRequest {
            user_id: bob.clone(),
            role_id: role.clone(),
            ..UnassignRoleRequest::default()
        };
        let act = async move { sup.roles().unassign_role(request).await };
        let happens = async {
            match n {
                0 => disable(&root, &user).await,
                1 => root.unassign(&user, &across).await,
                _ => root.unassign(&user, &works).await,
            }
        };
        let refusal = Box::pin(meanwhile(&app, lock.clone(), act, happens)).await;
        assert_eq!(reason(&refusal.expect_err("the caller lost its right")), *expected, "{n}");
        // The same call, with the tenant in the request.
        let request = UpdateTenantRequest {
            tenant: "acme".into(),
            name: Some("Taken".into()),
            ..UpdateTenantRequest::default()
        };
        home.tenants().update_tenant(request).await.expect_err("the caller lost its right");
    }
    let has = "select count(*) from role_assignments where user_id = $1";
    assert_eq!(app.count(has, &bob).await, 1);
}

/// N11: a user's change of the own data needs no permission.
#[tokio::test]
async fn a_user_that_loses_its_permission_meanwhile_may_still_change_itself() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    for (n, own) in [true, false].into_iter().enumerate() {
        let name = format!("ada-{n}");
        let ada = acme.member(&name, &["user:update"]).await;
        let role = acme.role_named(&name).await;
        let target = if own { &ada.user_id } else { &bob };
        let request = UpdateUserRequest {
            user_id: target.clone(),
            display_name: Some("Another".into()),
            ..UpdateUserRequest::default()
        };
        let act = {
            let ada = ada.clone();
            async move { ada.users().update_user(request).await }
        };
        let lock = format!("select from users where user_id = '{target}'");
        let answer = Box::pin(meanwhile(&app, lock, act, acme.unassign(&ada.user_id, &role))).await;
        if own {
            answer.expect("its own name");
        } else {
            refused(answer, Code::PermissionDenied, "PERMISSION_MISSING");
        }
    }
}

/// N11: the rule also applies to calls that do not affect the grants of others.
#[tokio::test]
async fn a_caller_that_loses_its_session_meanwhile_creates_and_deletes_nothing() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    let lock = format!("select from tenants where tenant_id = '{}'", acme.tenant_id);

    let ada = acme.member("ada", &["role:create", "service_account:create"]).await;
    let act = {
        let ada = ada.clone();
        let request = CreateRoleRequest {
            name: "late".into(),
            level: RoleLevel::Viewer.into(),
            ..CreateRoleRequest::default()
        };
        async move { ada.roles().create_role(request).await }
    };
    let happens = revoke_sessions(&acme, &ada.user_id);
    let refusal = Box::pin(meanwhile(&app, lock.clone(), act, happens)).await;
    refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");

    let ada = app.sign_in_as(&ada.user_id, &acme).await;
    let act = {
        let ada = ada.clone();
        let request = CreateServiceAccountRequest { name: "late".into(), ..Default::default() };
        async move { ada.service_accounts().create_service_account(request).await }
    };
    let happens = revoke_sessions(&acme, &ada.user_id);
    let refusal = Box::pin(meanwhile(&app, lock.clone(), act, happens)).await;
    refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");

    let deletes = root.create_role("deletes", RoleLevel::OrgAdmin, &["tenant:delete"]).await;
    let user = root.create_user_without_password("sup@platform.test").await;
    root.assign(&user, &deletes).await;
    let sup = app.sign_in_as(&user, &root).await;
    let request = DeleteTenantRequest { tenant: acme.slug.clone(), ..Default::default() };
    let act = {
        let (sup, request) = (sup.clone(), request.clone());
        async move { sup.tenants().delete_tenant(request).await }
    };
    let happens = disable(&root, &user);
    let refusal = Box::pin(meanwhile(&app, lock, act, happens)).await;
    refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
    assert!(acme.may("", "doc:read").await, "the tenant still exists");
}

/// N11: a tenant with self-registration gives its new members a role, so the creator of the tenant
/// must hold the permissions of that role.
#[tokio::test]
async fn an_open_tenant_is_created_only_by_a_caller_that_holds_its_member_role() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let makes = root.create_role("makes", RoleLevel::OrgAdmin, &["tenant:create"]).await;
    let user = root.create_user_without_password("sup@platform.test").await;
    root.assign(&user, &makes).await;
    let sup = app.sign_in_as(&user, &root).await;
    let request = |open: bool| CreateTenantRequest {
        name: format!("Open {open}"),
        settings: struct_of(serde_json::json!({ "self_registration": open })),
        ..CreateTenantRequest::default()
    };
    let refusal = sup.tenants().create_tenant(request(true)).await;
    refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
    sup.tenants().create_tenant(request(false)).await.expect("made");
    root.tenants().create_tenant(request(true)).await.expect("made");
}
