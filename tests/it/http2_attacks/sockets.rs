//! Large numbers of connections.

use tokio::net::TcpStream;

use super::{assert_responds, frames::Peer};
use crate::harness::{ServerProcess, TestApp, wait_until, within_seconds};

/// G12: the server accepts connections again after a lack of file descriptors (CVE-2024-47609).
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ran_out_of_file_descriptors_recovers() {
    let mut server = ServerProcess::start_with_file_limit(&[], 64).await;
    let mut sockets = Vec::new();
    for n in 0..200 {
        // Some connections are accepted, some wait to be accepted, and some are refused by the
        // kernel.
        if let Ok(socket) = TcpStream::connect(server.addr).await {
            // A third of the connections end with a reset.
            if n % 3 == 0 {
                socket.set_zero_linger().ok();
            }
            sockets.push(socket);
        }
    }
    drop(sockets);
    let server_responds = || async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.addr));
        let channel = endpoint.expect("a URL").connect().await;
        let Ok(channel) = channel else { return false };
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        health.check(tonic_health::pb::HealthCheckRequest::default()).await.is_ok()
    };
    wait_until(20, server_responds).await;
    assert!(server.process.try_wait().expect("a status").is_none(), "the server ended");
    assert_responds(&server).await;
}

/// G13: connections are limited by address and in total.
#[tokio::test]
async fn the_number_of_connections_is_limited() {
    for (setting, limit) in
        [("MAX_CONNECTIONS_PER_ADDRESS", "address"), ("MAX_CONNECTIONS", "total")]
    {
        let app = TestApp::with_settings(|values| values.set(setting, "3")).await;
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(Peer::connect(app.addr).await);
        }
        wait_until(5, || async { app.metric("tenantry_connections").await == Some(3.0) }).await;
        let mut fourth =
            TcpStream::connect(app.addr).await.expect("the kernel accepts the connection");
        let mut received = Vec::new();
        within_seconds(5, tokio::io::AsyncReadExt::read_to_end(&mut fourth, &mut received))
            .await
            .ok();
        assert!(received.is_empty());
        let refusals = format!("tenantry_connections_refused_total{{by=\"{limit}\"}}");
        assert_eq!(app.metric(&refusals).await, Some(1.0));
        connections.pop();
        wait_until(5, || async { app.metric("tenantry_connections").await == Some(2.0) }).await;
        app.anonymous()
            .auth()
            .get_jwks(tenantry::proto::v1::GetJwksRequest {})
            .await
            .expect("a new connection is accepted");
    }
}
