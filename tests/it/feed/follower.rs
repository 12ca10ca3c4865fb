//! The follower of the feed when all connections are in use, or when another Postgres server takes
//! over.

use sqlx::{AssertSqlSafe, Connection};
use tenantry::proto::v1::UpdateRoleRequest;

use super::replicas::user_with_read_role;
use crate::harness::{TestApp, wait_until};

/// I02: calls that wait for a lock use all connections of the pool. The feed has its own
/// connection.
#[tokio::test]
async fn the_feed_is_read_in_time_when_calls_use_all_connections() {
    let app = TestApp::with_settings(|values| values.set("DATABASE_MAX_CONNECTIONS", "1")).await;
    let acme = app.create_tenant("acme").await;
    let (user, role) = user_with_read_role(&acme, "ada").await;
    wait_until(5, || acme.user_may(&user, "doc:read")).await;

    let mut owner_connection = app.owner_connection().await;
    let mut observer = app.owner_connection().await;
    let mut lock_transaction = owner_connection.begin().await.expect("begun");
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

    let read_count = || async { app.metric(r#"tenantry_feed_reads_total{outcome="ok"}"#).await };
    let reads_before = read_count().await.expect("the feed is read");
    // Eight reads of the feed take two seconds. If the feed were not read for a second, decisions
    // would need a query. The query would fail, because the pool has no free connection.
    wait_until(10, || async {
        assert!(acme.user_may(&user, "doc:read").await);
        read_count().await > Some(reads_before + 8.0)
    })
    .await;
    lock_transaction.rollback().await.expect("the row is unlocked");
    update_call.await.expect("no panic").expect("changed");
    assert!(acme.user_may(&user, "doc:write").await);
}

/// Behind a connection pooler, another Postgres server can take over without a lost connection.
/// The feed of the new server does not report the changes that this server lacks, so the replica
/// must clear its cache.
#[tokio::test]
async fn the_cache_is_cleared_when_another_postgres_server_takes_over() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let (user, _) = user_with_read_role(&acme, "ada").await;
    wait_until(5, || acme.user_may(&user, "doc:read")).await;

    let mut owner_connection = app.owner_connection().await;
    let definition_query = "select pg_get_functiondef('read_changes(pg_snapshot)'::regprocedure)";
    let definition: String = sqlx::query_scalar(definition_query)
        .fetch_one(&mut owner_connection)
        .await
        .expect("a function");
    let changed_definition =
        definition.replace("pg_postmaster_start_time()", "timestamptz '2000-01-01Z'");
    assert_ne!(changed_definition, definition);
    // Simulates another server, with another start time, where the assignment does not exist.
    let mut tx = owner_connection.begin().await.expect("begun");
    for statement in [
        "delete from role_assignments where user_id = $1::uuid",
        "delete from changes where subject_id = $1::uuid",
    ] {
        sqlx::query(statement).bind(&user).execute(&mut *tx).await.expect("deleted");
    }
    sqlx::raw_sql(AssertSqlSafe(changed_definition)).execute(&mut *tx).await.expect("replaced");
    tx.commit().await.expect("committed");
    wait_until(5, || async { !acme.user_may(&user, "doc:read").await }).await;
}
