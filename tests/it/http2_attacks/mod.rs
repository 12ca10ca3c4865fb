//! Hostile clients that send raw HTTP/2 frames to the binary, valid and invalid. Meanwhile the
//! server responds to other clients, and its memory stays bounded.

mod floods;
mod frames;
mod hashing;
mod missing_messages;
mod names;
mod slow;
mod sockets;

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{ServerProcess, within_seconds};

/// Allowed growth of the server's memory during an attack, in KiB. The allocator keeps about this
/// much free memory. An attack sends far more.
const ALLOWED_GROWTH_KIB: u64 = 64 * 1024;

/// Asserts that the server responds to another client.
async fn assert_responds(server: &ServerProcess) {
    let health = HealthClient::new(server.channel.clone());
    let reply =
        within_seconds(5, async move { health.clone().check(HealthCheckRequest::default()).await });
    reply.await.expect("a response");
}
