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

/// Time after the begin of a read for which the caches may answer: the bound that
/// `CONSISTENCY_MINIMIZE_LATENCY` promises. The same time is the timeout of a caller that waits
/// for a read.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// State shared by the follower and the handles. All times are in milliseconds since `started`.
pub(super) struct State {
    started: Instant,
    /// Begin of the last successful read.
    read_at: AtomicU64,
    /// Time from which the caches may no longer answer.
    fresh_until: AtomicU64,
    /// Time of the last reset of the caches.
    reset_at: AtomicU64,
    /// Number of reads that have begun. The first read has number 1.
    begun: AtomicU64,
    /// The number of the last read that succeeded.
    ended: watch::Sender<u64>,
    woken: Arc<Notify>,
    pub(super) progress: Progress,
}

impl State {
    /// The state before the first read.
    pub(super) fn new(woken: Arc<Notify>, progress: Progress) -> Self {
        Self {
            started: Instant::now(),
            read_at: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            reset_at: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            woken,
            progress,
        }
    }

    /// Whether the caches may answer now.
    pub(super) fn is_fresh(&self) -> bool {
        self.now() < self.fresh_until.load(Ordering::Acquire)
    }

    /// Forbids the caches to answer until the next successful read.
    pub(super) fn expire(&self) {
        self.fresh_until.store(0, Ordering::Release);
    }

    /// Time since the last reset. The caches have applied every change of this time, up to the last
    /// read.
    pub(super) fn followed_for(&self) -> Duration {
        self.since(&self.reset_at)
    }

    /// Requests a read that begins after this call, so the read sees every earlier commit. Returns
    /// whether such a read succeeded within [`FRESH_FOR`].
    pub(super) async fn wait_for_new_read(&self) -> bool {
        let next_read = self.begun.load(Ordering::Acquire) + 1;
        self.woken.notify_one();
        let mut ended = self.ended.subscribe();
        let result = time::timeout(FRESH_FOR, ended.wait_for(|ended| *ended >= next_read)).await;
        matches!(result, Ok(Ok(_)))
    }

    /// Marks the begin of a read; returns the number of the read and the time.
    pub(super) fn begin(&self) -> (u64, u64) {
        (self.begun.fetch_add(1, Ordering::AcqRel) + 1, self.now())
    }

    /// Marks the successful end of a read. Returns whether the read was late, so that the caches
    /// could not answer for a while.
    pub(super) fn end(&self, (number, began): (u64, u64)) -> bool {
        let bound = u64::try_from(FRESH_FOR.as_millis()).unwrap_or(u64::MAX);
        self.read_at.store(began, Ordering::Release);
        let previous_limit = self.fresh_until.swap(began + bound, Ordering::AcqRel);
        self.ended.send_replace(number);
        number > 1 && self.now() > previous_limit
    }

    /// Waits for a wake-up, at most for `limit`; returns whether a wake-up came.
    pub(super) async fn wait_for_wake_up(&self, limit: Duration) -> bool {
        time::timeout(limit, self.woken.notified()).await.is_ok()
    }

    /// Records that the caches are reset now: they do not apply changes that were committed before.
    pub(super) fn record_reset(&self) {
        self.reset_at.store(self.now(), Ordering::Release);
    }

    pub(super) fn lag(&self) -> Duration {
        self.since(&self.read_at)
    }

    fn since(&self, moment: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(moment.load(Ordering::Acquire)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
