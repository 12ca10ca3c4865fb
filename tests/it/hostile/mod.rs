//! Hostile clients that send raw HTTP/2 frames to the binary, valid and invalid. Meanwhile the
//! server answers other clients and its memory stays bounded.

mod floods;
mod frames;
mod half_calls;
mod hashing;
mod names;
mod slow;
mod sockets;

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Serving, within};

/// Allowed growth of the server's memory during an attack, in KiB. The allocator keeps about this
/// much free memory. An attack sends far more.
const SLACK: u64 = 64 * 1024;

/// Asserts that the server answers another client.
async fn answers(serving: &Serving) {
    let request = HealthClient::new(serving.channel.clone());
    let reply =
        within(5, async move { request.clone().check(HealthCheckRequest::default()).await });
    reply.await.expect("an answer");
}
