//! Which connections may still be used. After a failover, connections that were opened before it
//! may lead to a server that is no longer the primary.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The time from which connections are valid.
#[derive(Debug)]
pub(super) struct Validity {
    /// The zero of the times in this file.
    started: Instant,
    /// In microseconds after `started`. Connections that were opened earlier must not be used.
    valid_from: AtomicU64,
    /// Whether a connection has reached a server that is not the primary since the last check.
    reached_other_server: AtomicBool,
}

impl Validity {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            valid_from: AtomicU64::new(0),
            reached_other_server: AtomicBool::new(false),
        }
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

    /// A number that changes whenever connections are invalidated, so at the latest when another
    /// server becomes the primary.
    pub(super) fn generation(&self) -> u64 {
        self.valid_from.load(Ordering::Acquire)
    }

    /// Records that a connection has reached a server that is not the primary. The next check then
    /// uses a new connection: the check's old connection may still lead to the primary, and would
    /// not show that new connections lead to another server.
    pub(super) fn record_other_server(&self) {
        self.reached_other_server.store(true, Ordering::Release);
    }

    /// Whether a connection has reached a server that is not the primary since this function was
    /// last called.
    pub(super) fn take_reached_other_server(&self) -> bool {
        self.reached_other_server.swap(false, Ordering::AcqRel)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
