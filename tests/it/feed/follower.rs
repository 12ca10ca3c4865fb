//! Following the feed when connections are scarce or the Postgres server changes.

use sqlx::{AssertSqlSafe, Connection};
use tenantry::proto::v1::UpdateRoleRequest;

use super::replicas::reader;
use crate::harness::{TestApp, until};

/// I02: calls that wait for a lock use all connections of the pool, but the feed has its own
/// connection.
#[tokio::test]
async fn the_feed_is_read_in_time_when_calls_use_up_the_connections() {
    let app = TestApp::with(|values| values.set("DATABASE_MAX_CONNECTIONS", "1")).await;
    let acme = app.tenant("acme").await;
    let (user, role) = reader(&acme, "ada").await;
    until(5, || acme.may(&user, "doc:read")).await;

    let mut owner = app.owner().await;
    let mut observer = app.owner().await;
    let mut lock_transaction = owner.begin().await.expect("begun");
    let lock = "select from roles where role_id = $1::uuid for update";
    sqlx::query(lock).bind(&role).execute(&mut *lock_transaction).await.expect("locked");
    let request = UpdateRoleRequest {
        role_id: role,
        permissions: vec!["doc:read".into(), "doc:write".into()],
        ..UpdateRoleRequest::default()
    };
    let mut roles = acme.roles();
    let update_call = tokio::spawn(async move { roles.update_role(request).await });
    let lock_wait_query = "select exists (select from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(lock_wait_query)
        .fetch_one(&mut observer)
        .await
        .expect("a row")
    {}

    let reads = || async { app.metric(r#"tenantry_feed_reads_total{outcome="ok"}"#).await };
    let before = reads().await.expect("it reads");
    // Eight reads take two seconds. With a late feed, the cache would stop answering, and the pool
    // has no free connection for a query.
    until(10, || async {
        assert!(acme.may(&user, "doc:read").await);
        reads().await > Some(before + 8.0)
    })
    .await;
    lock_transaction.rollback().await.expect("free");
    update_call.await.expect("no panic").expect("changed");
    assert!(acme.may(&user, "doc:write").await);
}

/// Behind a pooler another Postgres server can take over without a lost connection. Changes
/// that the first server lost are in no feed.
#[tokio::test]
async fn the_cache_is_cleared_when_another_server_answers() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let (user, _) = reader(&acme, "ada").await;
    until(5, || acme.may(&user, "doc:read")).await;

    let mut owner = app.owner().await;
    let function = "select pg_get_functiondef('read_changes(pg_snapshot)'::regprocedure)";
    let function: String =
        sqlx::query_scalar(function).fetch_one(&mut owner).await.expect("a function");
    let changed_function =
        function.replace("pg_postmaster_start_time()", "timestamptz '2000-01-01Z'");
    assert_ne!(changed_function, function);
    let mut tx = owner.begin().await.expect("begun");
    for statement in [
        "delete from role_assignments where user_id = $1::uuid",
        "delete from changes where subject_id = $1::uuid",
    ] {
        sqlx::query(statement).bind(&user).execute(&mut *tx).await.expect("deleted");
    }
    sqlx::raw_sql(AssertSqlSafe(changed_function)).execute(&mut *tx).await.expect("replaced");
    tx.commit().await.expect("committed");
    until(5, || async { !acme.may(&user, "doc:read").await }).await;
}
