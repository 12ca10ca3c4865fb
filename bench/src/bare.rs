//! Minimal gRPC server with only the health service. Its cost is the cost of gRPC itself on this
//! machine.

use std::net::SocketAddr;

use anyhow::Context;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::ServingStatus;

/// Serves only the health service, on one thread, until the process ends.
///
/// # Errors
/// Returns an error when the address is in use.
pub fn serve(addr: SocketAddr) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        let incoming = TcpIncoming::bind(addr)
            .map_err(|error| anyhow::anyhow!("can't listen on {addr}: {error}"))?
            .with_nodelay(Some(true));
        let server = Server::builder().add_service(service).serve_with_incoming(incoming);
        server.await.context("serving failed")
    })
}
