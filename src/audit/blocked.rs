//! The tenants whose stream in Redis takes no events.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// How long a stream that took no event is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// The streams that are remembered, at most. Further ones are tried in each pass through the
/// outbox.
const MAX: usize = 1_000;

/// Those that are left alone, and when that was found.
#[derive(Default)]
pub(super) struct Blocked(HashMap<Uuid, Instant>);

impl Blocked {
    /// Those that are left alone still.
    pub(super) fn current(&mut self) -> Vec<Uuid> {
        self.0.retain(|_, since| since.elapsed() < LEFT_ALONE);
        self.0.keys().copied().collect()
    }

    /// Leaves one alone; false where there is no room to remember it.
    pub(super) fn insert(&mut self, tenant: Uuid) -> bool {
        let has_room = self.0.len() < MAX;
        if has_room {
            self.0.insert(tenant, Instant::now());
        }
        has_room
    }
}
