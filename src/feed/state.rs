//! The feed as the rest of the service knows it: how fresh memory is, and how to
//! make it fresher.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fred::clients::SubscriberClient;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch},
    time,
};

use super::{
    Follow,
    follower::Follower,
    metrics::{Lag, Metrics},
    progress::Progress,
    token::{Revision, Sealer},
    trim, wake,
};
use crate::{
    db::Db,
    error::{Error, Result},
    proto::v1::ErrorReason,
    redis::Redis,
};

/// For how long after a read began memory may answer: the promise of
/// `minimize_latency`.
const BOUND: Duration = Duration::from_secs(1);

/// How many connections to Postgres the feed uses: its reader one, trimming another.
pub const CONNECTIONS: u32 = 2;

/// What the feed goes through.
pub struct Connections<'a> {
    /// Where it is. They are the feed's own, so that it is not late when calls use
    /// up theirs.
    pub db: Db,
    /// Wakes the other replicas.
    pub redis: Redis,
    /// Hears them.
    pub subscriber: &'a SubscriberClient,
}

/// The feed as this replica follows it. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    state: Arc<State>,
    redis: Redis,
}

/// Leave to answer from memory. Only the feed gives it.
#[derive(Clone, Copy, Debug)]
pub struct Fresh(());

/// What the follower and the rest share.
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

impl Feed {
    /// Begins to follow, and tells `followers` of each change, until the
    /// database's connections are closed.
    pub fn follow(
        connections: Connections<'_>,
        followers: Vec<Arc<dyn Follow>>,
        sealer: Arc<Sealer>,
        registry: &mut Registry,
    ) -> Self {
        let Connections { db, redis, subscriber } = connections;
        let woken = Arc::new(Notify::new());
        let state = Arc::new(State {
            started: Instant::now(),
            read_at: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            anew_at: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            woken: woken.clone(),
            progress: Progress::new(sealer),
        });
        let metrics = Metrics::register(registry, Lag(state.clone()));
        wake::listen(subscriber, db.clone(), woken, metrics.subscribed.clone());
        tokio::spawn(trim::keep_short(db.clone()));
        tokio::spawn(Follower::new(db, followers, metrics).run(state.clone()));
        Self { state, redis }
    }

    /// Leave to answer from memory, where it is no staler than it may be. It is for
    /// now: ask for it before memory is looked at, and keep it over no wait.
    #[must_use]
    pub fn fresh(&self) -> Option<Fresh> {
        let fresh = self.state.now() < self.state.fresh_until.load(Ordering::Acquire);
        fresh.then_some(Fresh(()))
    }

    /// Whether memory may answer now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh().is_some()
    }

    /// Whether memory was told of every change in this time, up to the last read:
    /// it did not start anew meanwhile.
    #[must_use]
    pub fn was_followed_for(&self, time: Duration) -> bool {
        self.state.since(&self.state.anew_at) > time
    }

    /// How long ago the last good read began.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.state.lag()
    }

    /// After a commit: returns once this replica's memory has it, or does not
    /// answer any more; and wakes the others.
    pub async fn catch_up(&self) {
        wake::others(&self.redis);
        if !self.state.read_anew().await {
            self.state.fresh_until.store(0, Ordering::Release);
        }
    }

    /// Reads until memory knows all below a revision's position that has ended;
    /// false when that takes too long. Many that ask at once share one read.
    pub async fn reach(&self, revision: Revision) -> bool {
        self.horizon() >= revision.position || self.state.read_anew().await
    }

    /// Reads the feed where memory may not answer; says whether it may then.
    pub async fn refresh(&self) -> bool {
        self.is_fresh() || self.state.read_anew().await
    }

    /// Every transaction below it has ended, and memory knows its changes.
    #[must_use]
    pub fn horizon(&self) -> u64 {
        self.state.progress.horizon()
    }

    /// Something that Postgres answered in a snapshot with this xmax is about to
    /// be decided with, or remembered.
    pub fn saw(&self, xmax: u64) {
        self.state.progress.saw(xmax);
    }

    /// The consistency token of what was decided since the horizon was this.
    ///
    /// # Errors
    /// INTERNAL when it can't be sealed, which no key makes it.
    pub fn token(&self, horizon: u64) -> Result<String> {
        self.state.progress.token(horizon)
    }

    /// The consistency token of a transaction that is about to commit.
    ///
    /// # Errors
    /// INTERNAL when it can't be sealed, which no key makes it.
    pub fn token_of(&self, transaction: u64) -> Result<String> {
        self.state.progress.token_of(transaction)
    }

    /// What a consistency token says.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for one that no replica made.
    pub fn open(&self, token: &str) -> Result<Revision> {
        self.state.progress.open(token).ok_or(Error::Field(
            ErrorReason::ConsistencyTokenInvalid,
            "consistency_token",
            "must be a token that this service returned",
        ))
    }
}

impl State {
    /// Waits for a read that begins from here on, so that it sees whatever has
    /// been committed; says whether it ended well within the bound.
    async fn read_anew(&self) -> bool {
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

    /// A read has ended well. Says whether it was late: since when the one before it
    /// had lost its worth, memory could not answer.
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
