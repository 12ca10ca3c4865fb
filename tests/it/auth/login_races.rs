//! AuthService.Login, and what happens at the same moment.

use std::time::Duration;

use tenantry::proto::v1::{LoginRequest, WhoAmIRequest};

use crate::harness::{PASSWORD, TestApp};

/// Disabling or deleting a user locks its tenant, then the user. A sign-in that
/// locked them the other way round would end in a deadlock with it.
#[tokio::test]
async fn a_sign_in_that_waits_for_the_tenant_holds_no_lock_on_the_user() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut owner = app.owner().await;
    let lock_tenant = "begin; select from tenants for no key update";
    sqlx::raw_sql(lock_tenant).execute(&mut owner).await.expect("locked");

    let request = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    let client = app.anonymous();
    let sign_in = tokio::spawn(async move { client.auth().login(request).await });
    tokio::time::timeout(Duration::from_secs(10), somebody_waits(&app)).await.expect("it waits");
    let lock_user = "select from users for no key update nowait";
    sqlx::raw_sql(lock_user).execute(&mut owner).await.expect("the user is free");
    sqlx::raw_sql("commit").execute(&mut owner).await.expect("committed");
    sign_in.await.expect("no panic").expect("signs in");
}

/// Until a backend of this database waits for a lock.
async fn somebody_waits(app: &TestApp) {
    let waiting = "select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock')";
    let mut owner = app.owner().await;
    while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut owner).await.expect("an answer") {
        tokio::task::yield_now().await;
    }
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
