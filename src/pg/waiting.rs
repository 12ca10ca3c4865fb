//! Measures how long calls have waited for a connection of a pool while the pool handed out none.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Timeout of the wait for a free connection of the pool. Then the call fails with UNAVAILABLE.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// The calls that wait for a connection of one pool.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The zero of the times in this file.
    started: Instant,
    /// When the wait began, in microseconds after `started`: when a call first waited, or got an
    /// error, after the pool last handed out a connection. 0 when no call waits.
    since: AtomicU64,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), since: AtomicU64::new(0) }
    }

    /// Records that a call waits, or that it got an error instead of a connection.
    pub(super) fn begin(&self) {
        let now = self.now().max(1);
        self.since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// Records that the pool handed out a connection, or can open one.
    pub(super) fn end(&self) {
        self.since.store(0, Ordering::Release);
    }

    /// How long calls have waited; `None` when no call waits.
    pub(super) fn duration(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Acquire);
        (since > 0).then(|| Duration::from_micros(self.now().saturating_sub(since)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
