//! The feed is followed under all conditions.

use sqlx::{AssertSqlSafe, Connection};
use tenantry::proto::v1::UpdateRoleRequest;

use super::replicas::reader;
use crate::harness::{TestApp, until};

/// I02: calls that wait for a lock use up the pool, but the feed has a connection of its own.
#[tokio::test]
async fn the_feed_is_read_in_time_when_calls_use_up_the_connections() {
    let app = TestApp::with(|values| values.set("DATABASE_MAX_CONNECTIONS", "1")).await;
    let acme = app.tenant("acme").await;
    let (user, role) = reader(&acme, "ada").await;
    until(5, || acme.may(&user, "doc:read")).await;

    let mut owner = app.owner().await;
    let mut watching = app.owner().await;
    let mut locked = owner.begin().await.expect("begun");
    let lock = "select from roles where role_id = $1::uuid for update";
    sqlx::query(lock).bind(&role).execute(&mut *locked).await.expect("locked");
    let request = UpdateRoleRequest {
        role_id: role,
        permissions: vec!["doc:read".into(), "doc:write".into()],
        ..UpdateRoleRequest::default()
    };
    let mut roles = acme.roles();
    let waiting = tokio::spawn(async move { roles.update_role(request).await });
    let waits = "select exists (select from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut watching).await.expect("a row") {}

    let reads = || async { app.metric(r#"tenantry_feed_reads_total{outcome="ok"}"#).await };
    let before = reads().await.expect("it reads");
    // Eight reads take two seconds. If the feed were late, memory would stop answering, and the
    // pool has no free connection.
    until(10, || async {
        assert!(acme.may(&user, "doc:read").await);
        reads().await > Some(before + 8.0)
    })
    .await;
    locked.rollback().await.expect("free");
    waiting.await.expect("no panic").expect("changed");
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
    let another = function.replace("pg_postmaster_start_time()", "timestamptz '2000-01-01Z'");
    assert_ne!(another, function);
    let mut tx = owner.begin().await.expect("begun");
    for statement in [
        "delete from role_assignments where user_id = $1::uuid",
        "delete from changes where subject_id = $1::uuid",
    ] {
        sqlx::query(statement).bind(&user).execute(&mut *tx).await.expect("forgotten");
    }
    sqlx::raw_sql(AssertSqlSafe(another)).execute(&mut *tx).await.expect("replaced");
    tx.commit().await.expect("committed");
    until(5, || async { !acme.may(&user, "doc:read").await }).await;
}
