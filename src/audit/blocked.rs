//! Tenants whose Redis stream accepts no events.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// Pause before the next attempt to send to a blocked stream.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Maximum number of blocked streams that are remembered. Each pass through the outbox tries to
/// send to the other blocked streams.
const MAX_STREAMS: usize = 1_000;

/// The blocked streams by tenant, and the time at which each stream rejected an event.
#[derive(Default)]
pub(super) struct Blocked(HashMap<Uuid, Instant>);

impl Blocked {
    /// The tenants whose streams are still paused.
    pub(super) fn current(&mut self) -> Vec<Uuid> {
        self.0.retain(|_, blocked_at| blocked_at.elapsed() < RETRY_PAUSE);
        self.0.keys().copied().collect()
    }

    /// Remembers a blocked stream; false when [`MAX_STREAMS`] streams are remembered already.
    pub(super) fn insert(&mut self, tenant: Uuid) -> bool {
        let has_room = self.0.len() < MAX_STREAMS;
        if has_room {
            self.0.insert(tenant, Instant::now());
        }
        has_room
    }
}
