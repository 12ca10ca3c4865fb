//! Large numbers of connections.

use tokio::net::TcpStream;

use super::{answers, frames::Peer};
use crate::harness::{Serving, TestApp, until, within};

/// G12: the server accepts connections again after a lack of file descriptors (CVE-2024-47609).
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ran_out_of_file_descriptors_recovers() {
    let mut serving = Serving::with_files(&[], 64).await;
    let mut sockets = Vec::new();
    for n in 0..200 {
        // Some connections are accepted, some wait to be accepted, and some are refused by the
        // kernel.
        if let Ok(socket) = TcpStream::connect(serving.addr).await {
            if n % 3 == 0 {
                socket.set_zero_linger().ok();
            }
            sockets.push(socket);
        }
    }
    drop(sockets);
    let channel = || async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", serving.addr));
        let channel = endpoint.expect("a URL").connect().await;
        let Ok(channel) = channel else { return false };
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        health.check(tonic_health::pb::HealthCheckRequest::default()).await.is_ok()
    };
    until(20, channel).await;
    assert!(serving.process.try_wait().expect("a status").is_none(), "it ended");
    answers(&serving).await;
}

/// G13: connections are limited by address and in total.
#[tokio::test]
async fn the_number_of_connections_is_limited() {
    for (setting, limit) in
        [("MAX_CONNECTIONS_PER_ADDRESS", "address"), ("MAX_CONNECTIONS", "total")]
    {
        let app = TestApp::with(|values| values.set(setting, "3")).await;
        let mut first = Vec::new();
        for _ in 0..3 {
            first.push(Peer::connect(app.addr).await);
        }
        until(5, || async { app.metric("tenantry_connections").await == Some(3.0) }).await;
        let mut fourth = TcpStream::connect(app.addr).await.expect("the kernel accepts");
        let mut received = Vec::new();
        within(5, tokio::io::AsyncReadExt::read_to_end(&mut fourth, &mut received)).await.ok();
        assert!(received.is_empty());
        let refused = format!("tenantry_connections_refused_total{{by=\"{limit}\"}}");
        assert_eq!(app.metric(&refused).await, Some(1.0));
        first.pop();
        until(5, || async { app.metric("tenantry_connections").await == Some(2.0) }).await;
        app.anonymous()
            .auth()
            .get_jwks(tenantry::proto::v1::GetJwksRequest {})
            .await
            .expect("a connection is free again");
    }
}
