//! AuthService.Login, and what happens at the same moment.

use tenantry::proto::v1::WhoAmIRequest;

use crate::harness::{PASSWORD, TestApp, within};

/// Changes of roles and users lock their tenant's row: a sign-in that did so too
/// would wait for them, and deadlock with those that lock its user next.
#[tokio::test]
async fn a_sign_in_does_not_wait_for_a_change_of_its_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut owner = app.owner().await;
    let lock_tenant = "begin; select from tenants for no key update";
    sqlx::raw_sql(lock_tenant).execute(&mut owner).await.expect("locked");

    within(10, app.anonymous().login("acme", &acme.email, PASSWORD)).await;
    sqlx::raw_sql("rollback").execute(&mut owner).await.expect("unlocked");
}

#[tokio::test]
async fn a_user_with_very_many_roles_can_use_its_token() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let give = "with r as (
            insert into roles (tenant_id, role_id, name, level, permissions)
            select $1::uuid, gen_random_uuid(), 'role-' || rpad(n::text, 95, 'x'), 2, '{doc:read}'
            from generate_series(100, 249) n returning role_id)
        insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
        select $1::uuid, role_id, $2::uuid, role_id from r";
    sqlx::query(give)
        .bind(&acme.tenant_id)
        .bind(&ada)
        .execute(&mut app.owner().await)
        .await
        .expect("roles");

    let ada = app.anonymous().login("acme", "ada@acme.test", PASSWORD).await;
    assert!(ada.tokens.access_token.len() <= 4096);
    let me = ada.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
    assert_eq!(me.roles.len(), 150, "what the token has no room for still counts");
    assert!(ada.may("", "doc:read").await);
}
