//! The feed as the rest of the service knows it: how fresh memory is, and how to
//! make it fresher.

use std::{sync::Arc, time::Duration};

use fred::clients::SubscriberClient;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use super::{
    Follow,
    follower::Follower,
    metrics::{Lag, Metrics},
    progress::Progress,
    state::State,
    token::{Revision, Sealer},
    trim, wake,
};
use crate::{
    error::{Error, Result},
    pg::Postgres,
    proto::v1::ErrorReason,
    redis::Redis,
};

/// How many connections to Postgres the feed uses: its reader one, trimming another.
pub const CONNECTIONS: u32 = 2;

/// What the feed reads from, and what wakes it.
pub struct Sources<'a> {
    /// Where it is. They are the feed's own, so that it is not late when calls use
    /// up theirs.
    pub postgres: Postgres,
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

impl Feed {
    /// Begins to follow, and tells `followers` of each change, until the
    /// database's connections are closed.
    pub fn follow(
        sources: Sources<'_>,
        followers: Vec<Arc<dyn Follow>>,
        sealer: Arc<Sealer>,
        registry: &mut Registry,
    ) -> Self {
        let Sources { postgres, redis, subscriber } = sources;
        let woken = Arc::new(Notify::new());
        let state = Arc::new(State::new(woken.clone(), Progress::new(sealer)));
        let metrics = Metrics::register(registry, Lag(state.clone()));
        wake::listen(subscriber, postgres.clone(), woken, metrics.subscribed.clone());
        tokio::spawn(trim::keep_short(postgres.clone()));
        tokio::spawn(Follower::new(postgres, followers, metrics).run(state.clone()));
        Self { state, redis }
    }

    /// Leave to answer from memory, where it is no staler than it may be. It is for
    /// now: ask for it before memory is looked at, and keep it over no wait.
    #[must_use]
    pub fn fresh(&self) -> Option<Fresh> {
        self.state.is_fresh().then_some(Fresh(()))
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
        self.state.followed_for() > time
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
            self.state.expire();
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
