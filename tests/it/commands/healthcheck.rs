//! `tenantry healthcheck`

use std::time::Duration;

use tokio::net::TcpListener;

use super::run;
use crate::harness::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_succeeds_when_the_server_is_ready() {
    let app = TestApp::spawn().await;
    let addr = app.addr.to_string();
    let unspecified_addr = format!("0.0.0.0:{}", app.addr.port());

    // The server is ready after its first successful query to Postgres.
    let until_ready = async { while !run(&["healthcheck"], &[("GRPC_ADDR", &addr)]).await.ok {} };
    tokio::time::timeout(Duration::from_secs(30), until_ready)
        .await
        .expect("the server becomes ready");
    for addr in [&addr, &unspecified_addr] {
        let output = run(&["healthcheck"], &[("GRPC_ADDR", addr)]).await;
        assert!(output.ok && output.out.trim() == "SERVING", "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_fails_when_no_server_answers() {
    let closed_listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = closed_listener.local_addr().expect("an address").to_string();
    drop(closed_listener);
    // A server that accepts connections but never answers.
    let silent_listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_addr = silent_listener.local_addr().expect("an address").to_string();

    for addr in [addr.as_str(), &silent_addr, "nonsense"] {
        let output = run(&["healthcheck"], &[("GRPC_ADDR", addr)]).await;
        assert!(!output.ok && output.out.is_empty(), "{addr}: {output:?}");
    }
}
