//! Peers that break HTTP/2's rules, or keep to them to do harm: raw frames against the
//! binary. Whatever they do, others are answered and memory stays bounded.

mod floods;
mod frames;
mod half_calls;
mod hashing;
mod names;
mod slow;
mod sockets;

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Serving, within};

/// Memory that the server may have more after an attack than before it, in KiB. It is
/// what allocators keep, and far less than what an attack sends.
const SLACK: u64 = 64 * 1024;

/// The server answers somebody else.
async fn answers(serving: &Serving) {
    let request = HealthClient::new(serving.channel.clone());
    let answered =
        within(5, async move { request.clone().check(HealthCheckRequest::default()).await });
    answered.await.expect("an answer");
}
