//! Postgres answers the check, and refuses further connections.

use crate::harness::{PrivatePostgres, ServerProcess, TestApp, wait_until};

/// Closes all connections of the service except those of the checks.
const CLOSE_POOLS: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where usename = 'tenantry_app'
      and query not like '%schema_version%' and query not like '%pg_is_in_recovery%'";

/// N51: while no connection for calls can be opened, the server is not ready, and the log has the
/// reason that Postgres gives, once. Both end without a restart.
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
    let refused = "no further connection to Postgres can be opened";
    wait_until(30, || async { !process.logged(refused).is_empty() }).await;
    let events = process.logged(refused);
    let cause = events[0]["cause"].as_str().expect("a cause");
    assert!(cause.contains("too many connections for role"), "{cause}");

    postgres.execute("postgres", "alter role tenantry_app connection limit -1").await;
    wait_until(20, || app.is_serving()).await;
    let opened = "connections to Postgres can be opened again";
    wait_until(20, || async { !process.logged(opened).is_empty() }).await;
    assert_eq!(process.logged(refused).len(), 1);
}
