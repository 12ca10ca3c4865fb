//! Postgres answers the readiness check of the server, but refuses further connections.

use crate::harness::{PrivatePostgres, ServerProcess, TestApp, wait_until};

/// Closes all connections of the service, except those that check the schema version or whether the
/// server is a standby.
const CLOSE_POOLS: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where usename = 'tenantry_app'
      and query not like '%schema_version%' and query not like '%pg_is_in_recovery%'";

/// N51: while no connection for calls can be opened, the server is not ready, and the log has the
/// reason that Postgres gives, once. When connections are possible again, the server becomes ready
/// without a restart, and logs this once.
#[tokio::test(flavor = "multi_thread")]
async fn without_connections_for_calls_the_server_is_not_ready() {
    let postgres = PrivatePostgres::start("no-connections").await;
    let url = postgres.app_url();
    let app = TestApp::on_database("no-connections", |values| {
        values.set("DATABASE_URL", url.clone());
    })
    .await;
    let process = ServerProcess::start(&[("DATABASE_URL", &url)]).await;
    wait_until(10, || app.is_serving()).await;

    postgres.execute("postgres", "alter role tenantry_app connection limit 0").await;
    wait_until(30, || async {
        postgres.execute("postgres", CLOSE_POOLS).await;
        !app.is_serving().await
    })
    .await;
    assert_eq!(app.metric("tenantry_postgres_up").await, Some(0.0));
    let refused_message = "no further connection to Postgres can be opened";
    wait_until(30, || async { !process.log_events(refused_message).is_empty() }).await;
    let events = process.log_events(refused_message);
    let cause = events[0]["cause"].as_str().expect("a cause");
    assert!(cause.contains("too many connections for role"), "{cause}");

    postgres.execute("postgres", "alter role tenantry_app connection limit -1").await;
    wait_until(20, || app.is_serving()).await;
    let opened_message = "connections to Postgres can be opened again";
    wait_until(20, || async { !process.log_events(opened_message).is_empty() }).await;
    assert_eq!(process.log_events(refused_message).len(), 1);
}
