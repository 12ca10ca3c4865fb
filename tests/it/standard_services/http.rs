//! Metrics, probes and keys over HTTP.

use serde_json::{Value, json};
use tenantry::{
    config::{Config, DEFAULT_HTTP_ADDR},
    proto::v1::GetJwksRequest,
    server::Listeners,
};
use tokio::net::TcpListener;

use crate::harness::{Proxy, TestApp, wait_until};

#[tokio::test]
async fn probes_distinguish_a_live_process_from_a_ready_one() {
    let proxy = Proxy::postgres().await;
    let direct_app = TestApp::spawn().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app =
        TestApp::on_database(&direct_app.database, |values| values.set("DATABASE_URL", url)).await;
    wait_until(10, || async { app.get("/readyz").await == (200, "ok".into()) }).await;

    proxy.cut();
    wait_until(10, || async { app.get("/readyz").await == (503, "not ready".into()) }).await;
    assert_eq!(app.get("/livez").await, (200, "ok".into()));

    proxy.pass();
    wait_until(10, || async { app.get("/readyz").await.0 == 200 }).await;
}

#[tokio::test]
async fn metrics_have_the_openmetrics_format() {
    let app = TestApp::spawn().await;
    let (status, page) = app.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(page.ends_with("# EOF\n"), "{page}");
    assert_eq!(app.get("/metrics/secret").await.0, 404);
}

/// N43: browser clients of any origin may read the keys.
#[tokio::test]
async fn keys_are_published_at_the_well_known_paths() {
    let app =
        TestApp::with_settings(|values| values.set("JWT_ISSUER", "https://id.example.com/")).await;
    let (status, head, body) = app.get_with_head("/.well-known/jwks.json").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/jwk-set+json"), "{head}");
    assert!(head.contains("cache-control: public, max-age=300"), "{head}");
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let keys: Value = serde_json::from_str(&body).expect("JSON");
    let rpc_keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    let rpc_keys: Vec<_> = rpc_keys
        .into_inner()
        .keys
        .into_iter()
        .map(|key| {
            json!({"kty": key.kty, "use": key.r#use, "alg": key.alg, "kid": key.kid,
                   "n": key.n, "e": key.e})
        })
        .collect();
    assert_eq!(keys, json!({ "keys": rpc_keys }));

    let (status, document) = app.get("/.well-known/openid-configuration").await;
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(document["issuer"], "https://id.example.com/");
    assert_eq!(document["jwks_uri"], "https://id.example.com/.well-known/jwks.json");
}

#[tokio::test]
async fn an_issuer_that_is_not_a_url_has_no_discovery_document() {
    let app = TestApp::spawn().await;
    assert_eq!(app.get("/.well-known/openid-configuration").await.0, 404);
}

#[tokio::test]
async fn http_can_be_turned_off() {
    let direct_app = TestApp::spawn().await;
    let mut values = TestApp::values(&direct_app.database);
    values.set("HTTP_ADDR", "off");
    let config = Config::check(&values).expect("settings");
    assert!(Listeners::bind(&config.server).await.expect("the ports are free").http.is_none());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_only_for_a_configured_address() {
    let direct_app = TestApp::spawn().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut values = TestApp::values(&direct_app.database);
    values.set("HTTP_ADDR", listener.local_addr().expect("an address").to_string());
    let config = Config::check(&values).expect("settings");
    let error = Listeners::bind(&config.server).await.err().expect("the port is in use");
    assert!(error.to_string().contains("can't listen on"), "{error}");

    // If this bind fails, another process already uses the port, which also suits the test.
    let _listener = TcpListener::bind(DEFAULT_HTTP_ADDR).await;
    values.set("HTTP_ADDR", DEFAULT_HTTP_ADDR.to_string());
    let config = Config::check(&values).expect("settings");
    assert!(Listeners::bind(&config.server).await.expect("the ports are free").http.is_none());
}
