//! Metrics of the feed.

use crate::harness::{PrivateRedis, Proxy, TestApp, wait_until};

const READS: &str = r#"tenantry_feed_reads_total{outcome="ok"}"#;
const FAILED_READS: &str = r#"tenantry_feed_reads_total{outcome="failed"}"#;

async fn wait_until_positive(app: &TestApp, metric: &str) {
    wait_until(10, || async { app.metric(metric).await.is_some_and(|value| value > 0.0) }).await;
}

/// F12: a change that arrives only through the feed increases a counter.
#[tokio::test]
async fn a_change_without_a_redis_message_is_counted() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("REDIS_URL", url)).await;
    proxy.drop_published_messages();
    wait_until_positive(&second_replica, READS).await;

    app.create_tenant("acme").await;
    wait_until_positive(&second_replica, "tenantry_invalidation_gap_total").await;
    assert!(second_replica.metric("tenantry_feed_changes_total").await > Some(0.0));
    assert!(second_replica.metric("tenantry_feed_lag_seconds").await < Some(5.0));
}

#[tokio::test]
async fn the_lag_grows_while_postgres_is_unavailable_and_the_lapse_is_counted() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    wait_until_positive(&second_replica, READS).await;

    proxy.cut();
    wait_until_positive(&second_replica, FAILED_READS).await;
    wait_until(10, || async {
        second_replica.metric("tenantry_feed_lag_seconds").await > Some(1.0)
    })
    .await;
    proxy.pass();
    wait_until_positive(&second_replica, "tenantry_feed_lapses_total").await;
}

/// N27: the subscription to Redis starts when Redis becomes available.
#[tokio::test]
async fn a_replica_started_while_redis_is_unavailable_subscribes_later() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::redis().await;
    proxy.cut();
    let url = proxy.redis_url();
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("REDIS_URL", url)).await;
    wait_until_positive(&second_replica, READS).await;
    let subscribed_metric = "tenantry_feed_subscribed";
    assert_eq!(second_replica.metric(subscribed_metric).await, Some(0.0));
    for _ in 0..2 {
        proxy.pass();
        wait_until(20, || async { second_replica.metric(subscribed_metric).await == Some(1.0) })
            .await;
        proxy.cut();
        wait_until(20, || async { second_replica.metric(subscribed_metric).await == Some(0.0) })
            .await;
    }
}

/// Two deployments use one Redis. A commit in one of them wakes no replica of the other one.
#[tokio::test]
async fn wake_ups_reach_only_the_replicas_of_the_same_database() {
    let redis = PrivateRedis::start().await;
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", redis.url())).await;
    let other_app = TestApp::with_settings(|values| values.set("REDIS_URL", redis.url())).await;
    for app in [&app, &other_app] {
        wait_until_positive(app, "tenantry_feed_subscribed").await;
    }
    // Each database has its own channel, and each channel has one subscriber.
    let channels =
        format!("tenantry:changes:{} tenantry:changes:{}", app.database, other_app.database);
    let reply = redis.ask(&format!("PUBSUB NUMSUB {channels}")).await;
    assert_eq!(reply.matches(":1\r\n").count(), 2, "{reply}");
}
