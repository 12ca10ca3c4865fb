//! Tenants whose Redis stream accepts no events.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// Pause before a blocked stream is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Maximum number of blocked streams that are remembered. The others are tried in each pass
/// through the outbox.
const MAX: usize = 1_000;

/// The blocked streams by tenant, and when each was found blocked.
#[derive(Default)]
pub(super) struct Blocked(HashMap<Uuid, Instant>);

impl Blocked {
    /// The tenants whose streams are still paused.
    pub(super) fn current(&mut self) -> Vec<Uuid> {
        self.0.retain(|_, since| since.elapsed() < RETRY_PAUSE);
        self.0.keys().copied().collect()
    }

    /// Remembers a blocked stream; false when there is no room for it.
    pub(super) fn insert(&mut self, tenant: Uuid) -> bool {
        let has_room = self.0.len() < MAX;
        if has_room {
            self.0.insert(tenant, Instant::now());
        }
        has_room
    }
}
