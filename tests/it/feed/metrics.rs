//! Metrics of the feed.

use crate::harness::{Proxy, TestApp, until};

const READS: &str = r#"tenantry_feed_reads_total{outcome="ok"}"#;
const FAILED_READS: &str = r#"tenantry_feed_reads_total{outcome="failed"}"#;

async fn grows(app: &TestApp, metric: &str) {
    until(10, || async { app.metric(metric).await.is_some_and(|value| value > 0.0) }).await;
}

/// F12
#[tokio::test]
async fn a_change_without_a_redis_message_is_counted() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let twin = TestApp::on(&app.database, |values| values.set("REDIS_URL", url)).await;
    proxy.swallow_messages();
    grows(&twin, READS).await;

    app.tenant("acme").await;
    grows(&twin, "tenantry_invalidation_gap_total").await;
    assert!(twin.metric("tenantry_feed_changes_total").await > Some(0.0));
    assert!(twin.metric("tenantry_feed_lag_seconds").await < Some(5.0));
}

#[tokio::test]
async fn the_lag_grows_while_postgres_is_unavailable_and_the_lapse_is_counted() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let twin = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    grows(&twin, READS).await;

    proxy.cut();
    grows(&twin, FAILED_READS).await;
    until(10, || async { twin.metric("tenantry_feed_lag_seconds").await > Some(1.0) }).await;
    proxy.pass();
    grows(&twin, "tenantry_feed_lapses_total").await;
}

/// N27
#[tokio::test]
async fn a_replica_started_while_redis_is_unavailable_subscribes_later() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::redis().await;
    proxy.cut();
    let url = proxy.redis_url();
    let twin = TestApp::on(&app.database, |values| values.set("REDIS_URL", url)).await;
    grows(&twin, READS).await;
    let subscribed = "tenantry_feed_subscribed";
    assert_eq!(twin.metric(subscribed).await, Some(0.0));
    for _ in 0..2 {
        proxy.pass();
        until(20, || async { twin.metric(subscribed).await == Some(1.0) }).await;
        proxy.cut();
        until(20, || async { twin.metric(subscribed).await == Some(0.0) }).await;
    }
}
