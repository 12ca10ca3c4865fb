//! Events that are not sealed (not yet in the audit chain): gauges, `tenantry audit verify`, and a
//! network that breaks.

use serde_json::Value;
use tenantry::proto::v1::RoleLevel;

use crate::{
    commands::run,
    harness::{Cluster, Fault, Proxy, TestApp, wait_until},
};

const UNSEALED_AGE: &str = "tenantry_audit_unsealed_oldest_seconds";

/// N33: a network that breaks without an error stops neither the sealer nor the publisher for long.
#[tokio::test(flavor = "multi_thread")]
async fn the_workers_continue_after_a_silent_break_of_the_network() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let database = app.database.clone();
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    app.stop().await;
    let is_settled = async || {
        let waiting: i64 = sqlx::query_scalar(
            "select (select count(*) from audit_queue) + (select count(*) from audit_outbox)",
        )
        .fetch_one(&mut Cluster::get().connect_owner(&database).await)
        .await
        .expect("counted");
        waiting == 0
    };
    for (role, statement) in [("first", "seal_events"), ("second", "mark_published")] {
        // The replies on this connection never arrive, and the connection stays open. Each round
        // needs a new server: the fault starts at the text of the statement, which a connection
        // sends only once.
        proxy.fault_when_sent(statement, Fault::HoldReplies);
        let url = proxy.postgres_url(&database);
        let app = TestApp::on_database(&database, |values| values.set("DATABASE_URL", url)).await;
        acme.on_server(&app.channel).create_role(role, RoleLevel::Member, &[]).await;
        proxy.wait_until_held().await;
        wait_until(60, is_settled).await;
        proxy.pass();
        app.stop().await;
    }
}

/// N33: events that wait are visible in a gauge, and are no fault of the trail.
#[tokio::test]
async fn unsealed_events_are_visible_and_are_no_fault() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    let verify = async || {
        let url = Cluster::get().app_url(&app.database);
        let output = run(&["audit", "verify", "--tenant", "acme"], &[("DATABASE_URL", &url)]).await;
        let line: Value = serde_json::from_str(&output.out).expect("a line of JSON");
        (output, line)
    };
    // As long as this transaction holds the lock of the sealer, no replica seals.
    let mut connection = app.owner_connection().await;
    sqlx::query("select pg_advisory_lock(hashtextextended('tenantry:seal', 0))")
        .execute(&mut connection)
        .await
        .expect("locked");
    acme.create_role("clerk", RoleLevel::Member, &[]).await;
    sqlx::query(
        "update audit_events e set created_at = created_at - interval '1 h' from audit_queue q
         where e.tenant_id = q.tenant_id and e.event_id = q.event_id",
    )
    .execute(&mut app.owner_connection().await)
    .await
    .expect("updated");
    let (output, line) = verify().await;
    assert!(output.ok && output.err.contains("wait to be sealed"), "{output:?}");
    assert_eq!((&line["unsealed"], &line["faults"]), (&1.into(), &serde_json::json!([])));
    wait_until(30, || async { app.metric(UNSEALED_AGE).await > Some(0.0) }).await;

    sqlx::query("select pg_advisory_unlock_all()")
        .execute(&mut connection)
        .await
        .expect("unlocked");
    app.wait_until_audit_settled().await;
    let (_, line) = verify().await;
    assert_eq!(line["unsealed"], 0);
    wait_until(30, || async { app.metric(UNSEALED_AGE).await == Some(0.0) }).await;
}
