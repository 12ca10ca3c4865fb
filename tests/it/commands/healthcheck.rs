//! `tenantry healthcheck`

use std::time::Duration;

use tokio::net::TcpListener;

use super::run;
use crate::harness::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn it_succeeds_when_the_server_is_ready() {
    let app = TestApp::spawn().await;
    let addr = app.addr.to_string();
    let everywhere = format!("0.0.0.0:{}", app.addr.port());

    // The server is ready after Postgres has answered.
    let ready = async { while !run(&["healthcheck"], &[("GRPC_ADDR", &addr)]).await.ok {} };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("it becomes ready");
    for addr in [&addr, &everywhere] {
        let ran = run(&["healthcheck"], &[("GRPC_ADDR", addr)]).await;
        assert!(ran.ok && ran.out.trim() == "SERVING", "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fails_when_no_server_answers() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = closed.local_addr().expect("an address").to_string();
    drop(closed);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().map(|addr| (silent, addr.to_string())).expect("an address");

    for addr in [addr.as_str(), &silent.1, "nonsense"] {
        let ran = run(&["healthcheck"], &[("GRPC_ADDR", addr)]).await;
        assert!(!ran.ok && ran.out.is_empty(), "{addr}: {ran:?}");
    }
}
