//! Blocked streams: streams in Redis that accept no events.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// Pause before the next attempt to send to a blocked stream.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Maximum number of blocked streams that are remembered, to limit the memory. A blocked stream
/// that is not remembered has no pause: each pass through the outbox tries again to send to it.
const MAX_STREAMS: usize = 1_000;

/// The blocked streams by tenant, and the time at which each stream last rejected an event.
#[derive(Default)]
pub(super) struct BlockedStreams(HashMap<Uuid, Instant>);

impl BlockedStreams {
    /// The tenants whose streams rejected an event in the last [`RETRY_PAUSE`]. Forgets the other
    /// streams, so that the server tries again to send to them.
    pub(super) fn paused_tenants(&mut self) -> Vec<Uuid> {
        self.0.retain(|_, blocked_at| blocked_at.elapsed() < RETRY_PAUSE);
        self.0.keys().copied().collect()
    }

    /// Remembers a blocked stream. Returns false when [`MAX_STREAMS`] streams are remembered
    /// already.
    pub(super) fn insert(&mut self, tenant: Uuid) -> bool {
        let has_room = self.0.len() < MAX_STREAMS;
        if has_room {
            self.0.insert(tenant, Instant::now());
        }
        has_room
    }
}
