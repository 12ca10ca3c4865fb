//! Which connections may still be used. After a failover, connections that were opened before it
//! may lead to a server that is no longer the primary.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The time from which connections are valid.
#[derive(Debug)]
pub(super) struct Validity {
    started: Instant,
    /// Microseconds from `started`. Connections that were opened earlier must not be used.
    valid_from: AtomicU64,
}

impl Validity {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), valid_from: AtomicU64::new(0) }
    }

    /// Whether a connection that was opened this long ago may be used.
    pub(super) fn accepts(&self, age: Duration) -> bool {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.now().saturating_sub(age) >= self.valid_from.load(Ordering::Acquire)
    }

    /// Forbids the use of all connections that are open now.
    pub(super) fn invalidate(&self) {
        self.valid_from.fetch_max(self.now(), Ordering::AcqRel);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
