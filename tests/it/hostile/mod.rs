//! Clients that break HTTP/2's rules, or attack within the rules: raw frames against the
//! binary. Meanwhile other clients are answered and memory stays bounded.

mod floods;
mod frames;
mod half_calls;
mod hashing;
mod names;
mod slow;
mod sockets;

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Serving, within};

/// Memory that the server may use more after an attack than before it, in KiB. Allocators keep
/// about as much; an attack sends far more.
const SLACK: u64 = 64 * 1024;

/// Asserts that the server answers another client.
async fn answers(serving: &Serving) {
    let request = HealthClient::new(serving.channel.clone());
    let answered =
        within(5, async move { request.clone().check(HealthCheckRequest::default()).await });
    answered.await.expect("an answer");
}
