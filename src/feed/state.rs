//! How fresh memory is.

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

/// For how long after a read began memory may answer: the promise of
/// `minimize_latency`.
const BOUND: Duration = Duration::from_secs(1);

/// What the follower and the handles share.
pub(super) struct State {
    started: Instant,
    /// When the last good read began, and until when memory may answer; in ms
    /// since `started`.
    read_at: AtomicU64,
    fresh_until: AtomicU64,
    /// When memory last started anew; in the same.
    anew_at: AtomicU64,
    /// How many reads have begun, and how many of those have ended well.
    begun: AtomicU64,
    ended: watch::Sender<u64>,
    woken: Arc<Notify>,
    pub(super) progress: Progress,
}

impl State {
    /// Nothing was read yet.
    pub(super) fn new(woken: Arc<Notify>, progress: Progress) -> Self {
        Self {
            started: Instant::now(),
            read_at: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            anew_at: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            woken,
            progress,
        }
    }

    /// Whether memory is no staler than it may be.
    pub(super) fn is_fresh(&self) -> bool {
        self.now() < self.fresh_until.load(Ordering::Acquire)
    }

    /// Memory must not answer until the next good read.
    pub(super) fn expire(&self) {
        self.fresh_until.store(0, Ordering::Release);
    }

    /// For how long memory was told of every change.
    pub(super) fn followed_for(&self) -> Duration {
        self.since(&self.anew_at)
    }

    /// Waits for a read that begins from here on, so that it sees whatever has
    /// been committed; says whether it ended well within the bound.
    pub(super) async fn read_anew(&self) -> bool {
        let wanted = self.begun.load(Ordering::Acquire) + 1;
        self.woken.notify_one();
        let mut ended = self.ended.subscribe();
        let read = time::timeout(BOUND, ended.wait_for(|ended| *ended >= wanted)).await;
        matches!(read, Ok(Ok(_)))
    }

    /// A read begins: its number and the time.
    pub(super) fn begin(&self) -> (u64, u64) {
        (self.begun.fetch_add(1, Ordering::AcqRel) + 1, self.now())
    }

    /// A read has ended well. Says whether it was late: memory had become staler
    /// than it may be, and could not answer for a while.
    pub(super) fn end(&self, (number, began): (u64, u64)) -> bool {
        let bound = u64::try_from(BOUND.as_millis()).unwrap_or(u64::MAX);
        self.read_at.store(began, Ordering::Release);
        let until = self.fresh_until.swap(began + bound, Ordering::AcqRel);
        self.ended.send_replace(number);
        number > 1 && self.now() > until
    }

    /// Waits until somebody says that there is something to read, no longer than
    /// `limit`; says whether somebody did.
    pub(super) async fn rest(&self, limit: Duration) -> bool {
        time::timeout(limit, self.woken.notified()).await.is_ok()
    }

    /// Memory starts anew: what was committed up to here it is not told of.
    pub(super) fn start_anew(&self) {
        self.anew_at.store(self.now(), Ordering::Release);
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
