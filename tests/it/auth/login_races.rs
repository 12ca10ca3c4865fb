//! AuthService.Login during concurrent changes of the tenant or the user, and with very many roles.

use tenantry::proto::v1::{LoginRequest, ReactivateTenantRequest, SuspendTenantRequest};
use tonic::Code;

use crate::harness::{PASSWORD, TestApp, assert_refused, wait_until, within_seconds};

/// Changes of roles and users lock the row of their tenant. A sign-in must not lock the tenant's
/// row: the sign-in would wait for these changes, and would deadlock with a change that locks the
/// user next.
#[tokio::test]
async fn a_sign_in_does_not_wait_for_a_change_of_its_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    let lock_tenant = "begin; select from tenants for no key update";
    sqlx::raw_sql(lock_tenant).execute(&mut owner_connection).await.expect("locked");

    within_seconds(10, app.anonymous().login("acme", &acme.email, PASSWORD)).await;
    sqlx::raw_sql("rollback").execute(&mut owner_connection).await.expect("unlocked");
}

#[tokio::test]
async fn a_user_with_very_many_roles_can_use_its_token() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    // 150 roles with names of 100 characters.
    let insert = "with r as (
            insert into roles (tenant_id, role_id, name, level, permissions)
            select $1::uuid, gen_random_uuid(), 'role-' || rpad(n::text, 95, 'x'), 2, '{doc:read}'
            from generate_series(100, 249) n returning role_id)
        insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
        select $1::uuid, role_id, $2::uuid, role_id from r";
    sqlx::query(insert)
        .bind(&acme.tenant_id)
        .bind(&ada)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("roles");

    let ada = app.anonymous().login(&acme.slug, "ada@acme.test", PASSWORD).await;
    assert!(ada.tokens.access_token.len() <= 4096);
    let me = ada.identity().await;
    assert_eq!(me.roles.len(), 150, "WhoAmI also returns the roles that are left out of the token");
    assert!(ada.may("doc:read").await);
}

/// N07: the tenant's state is checked again before a session is created.
#[tokio::test]
async fn a_sign_in_that_waits_while_its_tenant_is_suspended_is_refused() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    let lock_users = "begin; select from users for update";
    sqlx::raw_sql(lock_users).execute(&mut owner_connection).await.expect("locked");
    let mut auth = app.anonymous().auth();
    let request = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    let sign_in = tokio::spawn(async move { auth.login(request).await });
    wait_until(10, || async {
        let count_waiting = "select count(*) from pg_stat_activity
                     where wait_event_type = 'Lock' and datname = current_database()";
        let waiting: i64 = sqlx::query_scalar(count_waiting)
            .fetch_one(&mut app.owner_connection().await)
            .await
            .expect("a count");
        waiting == 1
    })
    .await;
    let request = SuspendTenantRequest { tenant: "acme".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    sqlx::raw_sql("rollback").execute(&mut owner_connection).await.expect("unlocked");

    let reply = sign_in.await.expect("the call does not panic");
    assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    assert_eq!(app.audit_event_count(&acme.tenant_id, "sign_in_failed").await, 1);
    let request = ReactivateTenantRequest { tenant: "acme".into() };
    platform_admin.tenants().reactivate_tenant(request).await.expect("reactivated");
    let sessions = "select count(*) from sessions where tenant_id = $1::uuid";
    assert_eq!(
        app.count(sessions, &acme.tenant_id).await,
        1,
        "only the session of the first sign-in"
    );
}
