//! The times at which calls are due: a fixed rate, also when the service is slow.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

pub struct Pace {
    start: Instant,
    interval: Duration,
    next: AtomicU32,
}

impl Pace {
    /// A pace of `rate` calls per second, from now on.
    pub fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { start: Instant::now(), interval, next: AtomicU32::new(0) }
    }

    /// Waits until the next call is due. Returns the due time, which is in the past when all
    /// workers were waiting for responses. The latency of a call is measured from its due time.
    pub async fn wait_until_due(&self) -> Instant {
        let due = self.start + self.interval * self.next.fetch_add(1, Ordering::Relaxed);
        sleep_until(due).await;
        due
    }
}
