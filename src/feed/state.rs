//! The freshness of the in-memory caches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time,
};

use super::progress::Progress;

/// Time from the start of a read for which the caches may be used: the bound that
/// `CONSISTENCY_MINIMIZE_LATENCY` promises. The same time is the timeout of a wait for a read.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// State shared by the follower and the handles. All times are in milliseconds since `started`.
pub(super) struct State {
    started: Instant,
    /// Start of the last successful read.
    last_read_start: AtomicU64,
    /// Time from which the caches may no longer be used.
    fresh_until: AtomicU64,
    /// Time of the last reset of the caches.
    reset_at: AtomicU64,
    /// The number of reads that have started. The first read has the number 1.
    started_reads: AtomicU64,
    /// The number of the last successful read.
    last_successful_read: watch::Sender<u64>,
    /// Ends the follower's pause between two reads.
    wake_up: Arc<Notify>,
    pub(super) progress: Progress,
}

impl State {
    /// The state before the first read.
    pub(super) fn new(wake_up: Arc<Notify>, progress: Progress) -> Self {
        Self {
            started: Instant::now(),
            last_read_start: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            reset_at: AtomicU64::new(0),
            started_reads: AtomicU64::new(0),
            last_successful_read: watch::Sender::new(0),
            wake_up,
            progress,
        }
    }

    /// Whether the caches may be used now.
    pub(super) fn is_fresh(&self) -> bool {
        self.now() < self.fresh_until.load(Ordering::Acquire)
    }

    /// Forbids the use of the caches until the next successful read.
    pub(super) fn expire(&self) {
        self.fresh_until.store(0, Ordering::Release);
    }

    /// Time since the last reset. The caches have applied every change in this time, up to the last
    /// read.
    pub(super) fn followed_for(&self) -> Duration {
        self.elapsed_since(&self.reset_at)
    }

    /// Requests a read that starts after this call, so that the read includes every earlier commit.
    /// Returns whether this read or a later read succeeded within [`FRESH_FOR`].
    pub(super) async fn wait_for_new_read(&self) -> bool {
        // A read that is in progress now may have started before the last commit.
        let next_read = self.started_reads.load(Ordering::Acquire) + 1;
        self.wake_up.notify_one();
        let mut successful_read = self.last_successful_read.subscribe();
        let wait = successful_read.wait_for(|number| *number >= next_read);
        let result = time::timeout(FRESH_FOR, wait).await;
        matches!(result, Ok(Ok(_)))
    }

    /// Marks the start of a read; returns the number and the start time of the read.
    pub(super) fn begin_read(&self) -> (u64, u64) {
        (self.started_reads.fetch_add(1, Ordering::AcqRel) + 1, self.now())
    }

    /// Marks the successful end of a read. Returns whether the read was late: the caches could not
    /// be used for a while before the read ended. The first read is never late.
    pub(super) fn end_read(&self, (number, start): (u64, u64)) -> bool {
        let fresh_millis = u64::try_from(FRESH_FOR.as_millis()).unwrap_or(u64::MAX);
        self.last_read_start.store(start, Ordering::Release);
        let previous_fresh_until = self.fresh_until.swap(start + fresh_millis, Ordering::AcqRel);
        self.last_successful_read.send_replace(number);
        number > 1 && self.now() > previous_fresh_until
    }

    /// Waits for a wake-up, at most for `limit`; returns whether there was a wake-up.
    pub(super) async fn wait_for_wake_up(&self, limit: Duration) -> bool {
        time::timeout(limit, self.wake_up.notified()).await.is_ok()
    }

    /// Records that the caches are reset now. From now on, they apply only later changes.
    pub(super) fn record_reset(&self) {
        self.reset_at.store(self.now(), Ordering::Release);
    }

    /// Time since the last successful read began.
    pub(super) fn lag(&self) -> Duration {
        self.elapsed_since(&self.last_read_start)
    }

    fn elapsed_since(&self, moment: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(moment.load(Ordering::Acquire)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
