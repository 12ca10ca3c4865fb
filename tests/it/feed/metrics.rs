//! What operators see of the feed.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use tenantry::{app::App, config::Config};

use crate::harness::{Proxy, TestApp, until};

/// A metric's value.
fn value(app: &tenantry::app::Parts, name: &str) -> f64 {
    let mut text = String::new();
    encode(&mut text, &app.registry).expect("text");
    let mut start = String::new();
    write!(start, "{name} ").expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// F12
#[tokio::test]
async fn a_change_that_redis_did_not_tell_of_is_counted() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::redis().await;
    let mut values = TestApp::values(&app.database);
    values.set("REDIS_URL", proxy.redis_url());
    let config = Config::check(&values).expect("the settings are good");
    let parts = App::build(config).expect("the app builds").into_parts();
    let read = r#"tenantry_feed_reads_total{outcome="ok"}"#;
    until(5, || async { value(&parts, read) > 0.0 }).await;
    proxy.cut();

    let acme = app.tenant("acme").await;
    until(5, || async { value(&parts, "tenantry_invalidation_gap_total") > 0.0 }).await;
    assert!(value(&parts, "tenantry_feed_changes_total") > 0.0);
    assert!(value(&parts, "tenantry_feed_lag_seconds") < 5.0);
    drop(acme);
    parts.stores.close().await;
}

#[tokio::test]
async fn the_lag_grows_while_postgres_does_not_answer_and_the_lapse_is_counted() {
    let app = TestApp::spawn().await;
    let proxy = Proxy::postgres().await;
    let mut values = TestApp::values(&app.database);
    values.set("DATABASE_URL", proxy.postgres_url(&app.database));
    let config = Config::check(&values).expect("the settings are good");
    let parts = App::build(config).expect("the app builds").into_parts();
    until(5, || async { value(&parts, r#"tenantry_feed_reads_total{outcome="ok"}"#) > 0.0 }).await;
    proxy.cut();
    let failed = r#"tenantry_feed_reads_total{outcome="failed"}"#;
    until(10, || async { value(&parts, failed) > 0.0 }).await;
    until(10, || async { value(&parts, "tenantry_feed_lag_seconds") > 1.0 }).await;
    proxy.pass();
    until(10, || async { value(&parts, "tenantry_feed_lapses_total") > 0.0 }).await;
    parts.stores.close().await;
}
