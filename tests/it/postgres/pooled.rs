//! The tenant setting ends with its transaction: the next transaction on the connection, or the
//! next client of a transaction pooler, starts without a tenant.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use tenantry::{db::Db, ids::TenantId, proto::v1::ListUsersRequest};

use crate::harness::{Cluster, TestApp};

/// A pool with one connection, opened as the service does.
fn one_connection(app: &TestApp) -> Db {
    Db::connect(&Cluster::get().app_url(&app.database).into(), 1).expect("a pool")
}

/// The tenant setting of the connection, outside of a transaction.
async fn tenant_setting(db: &Db) -> Option<String> {
    let query = "select nullif(current_setting('tenantry.tenant', true), '')";
    sqlx::query_scalar(query).fetch_one(db.executor()).await.expect("a setting")
}

/// E05: also when the previous transaction was dropped, failed, or was rolled back to a savepoint.
#[tokio::test]
async fn a_pooled_connection_keeps_no_tenant_from_the_previous_transaction() {
    let app = TestApp::spawn().await;
    let tenant = TenantId(app.create_tenant("a").await.tenant_id.parse().expect("an id"));
    let db = one_connection(&app);

    let tx = db.begin(tenant).await.expect("begun");
    tx.commit().await.expect("committed");
    assert_eq!(tenant_setting(&db).await, None);

    drop(db.begin(tenant).await.expect("begun"));
    assert_eq!(tenant_setting(&db).await, None);

    let mut tx = db.begin(tenant).await.expect("begun");
    sqlx::query("select 1 / 0").execute(tx.conn()).await.expect_err("the division by zero fails");
    drop(tx);
    assert_eq!(tenant_setting(&db).await, None);

    let mut tx = db.begin(tenant).await.expect("begun");
    sqlx::query("savepoint before").execute(tx.conn()).await.expect("a savepoint");
    tx.switch_tenant(TenantId::new()).await.expect("the tenant is switched");
    sqlx::query("rollback to savepoint before").execute(tx.conn()).await.expect("rolled back");
    let query = "select current_tenant()";
    let tenant_after_rollback: uuid::Uuid =
        sqlx::query_scalar(query).fetch_one(tx.conn()).await.expect("a tenant");
    assert_eq!(tenant_after_rollback, tenant.0);
    tx.commit().await.expect("committed");
    assert_eq!(tenant_setting(&db).await, None);
}

/// E06: after such a function, the connection has no tenant.
#[tokio::test]
async fn functions_that_set_the_tenant_reset_it() {
    let app = TestApp::spawn().await;
    let a = app.create_tenant("a").await;
    let db = one_connection(&app);
    let (tenant, user, nil) = (&a.tenant_id, &a.user_id, uuid::Uuid::nil());
    for call in [
        format!("subject_standings('{tenant}', array['{user}']::uuid[], null)"),
        format!("explained_standing('{tenant}', '{user}', null, array['a:b'], 1)"),
        format!("sign_in_candidate('{tenant}', '')"),
        format!(
            "rotate_session('{tenant}', '{user}', '{nil}', '', null, '', '', '', '',
             '1 s', '1 s', '1 s', '{nil}', '', null)"
        ),
        format!(
            "open_session('{tenant}', '{user}', '{{}}', '', null, '{nil}', '', '', '', now(),
             '', '', now(), now(), now(), '{nil}', '', null)"
        ),
    ] {
        let query = AssertSqlSafe(format!("select true from {call}"));
        sqlx::query(query).fetch_all(db.executor()).await.expect("the function runs");
        assert_eq!(tenant_setting(&db).await, None, "{call}");
    }
}

/// E06: 200 calls of two tenants share two connections.
#[tokio::test]
async fn many_callers_on_few_connections_see_only_their_own_tenant() {
    let app = TestApp::with_settings(|values| values.set("DATABASE_MAX_CONNECTIONS", "2")).await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let admins = Arc::new([a, b]);
    let calls = (0..200).map(|n| {
        let admins = admins.clone();
        async move {
            let caller = &admins[n % 2];
            let users = caller.users().list_users(ListUsersRequest::default()).await;
            let users = users.expect("users").into_inner().users;
            let emails: Vec<_> = users.into_iter().map(|user| user.email).collect();
            assert_eq!(emails, [caller.email.as_str()]);
        }
    });
    futures::future::join_all(calls).await;
}
