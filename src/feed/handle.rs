//! The handle to the feed for the rest of the service. The handle reports how fresh the in-memory
//! caches are, and refreshes them.

use std::{sync::Arc, time::Duration};

use fred::clients::SubscriberClient;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use super::{
    ChangeListener,
    follower::Follower,
    metrics::{Lag, Metrics},
    progress::Progress,
    state::State,
    token::{Revision, Sealer, Snapshot},
    trim, wake,
};
use crate::{
    error::{Error, Result},
    pg::Postgres,
    proto::v1::ErrorReason,
    redis::Redis,
};

/// Number of Postgres connections that the feed uses: one for the follower and one for trimming.
pub const CONNECTIONS: u32 = 2;

/// The connections that the feed needs.
pub struct Sources<'a> {
    /// A pool that only the feed uses. So calls that use all connections of their pool do not delay
    /// the feed.
    pub postgres: Postgres,
    /// Publishes wake-ups for other replicas.
    pub redis: Redis,
    /// Receives wake-ups from other replicas.
    pub subscriber: &'a SubscriberClient,
}

/// A handle to the feed that this replica follows. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    state: Arc<State>,
    redis: Redis,
    /// The channel of the wake-ups.
    channel: Arc<str>,
}

/// Proof that the caches are fresh enough for decisions. Only [`Feed::freshness_proof`] creates this value.
#[derive(Clone, Copy, Debug)]
pub struct FreshnessProof(());

impl Feed {
    /// Starts to follow the feed, and passes each change to `listeners` until the pool is closed.
    pub fn start(
        sources: Sources<'_>,
        listeners: Vec<Arc<dyn ChangeListener>>,
        sealer: Arc<Sealer>,
        registry: &mut Registry,
    ) -> Self {
        let Sources { postgres, redis, subscriber } = sources;
        let wake_up = Arc::new(Notify::new());
        let state = Arc::new(State::new(wake_up.clone(), Progress::new(sealer)));
        let metrics = Metrics::register(registry, Lag(state.clone()));
        let channel = wake::channel(&postgres);
        let subscribed = metrics.subscribed.clone();
        wake::listen(subscriber, channel.clone(), postgres.clone(), wake_up, subscribed);
        tokio::spawn(trim::trim_until_closed(postgres.clone(), metrics.trimmed.clone()));
        tokio::spawn(Follower::new(postgres, listeners, metrics).run(state.clone()));
        Self { state, redis, channel }
    }

    /// A proof that the caches are fresh enough for decisions now; `None` when they are not. Get
    /// the proof before you read a cache, and do not hold the proof across an await.
    #[must_use]
    pub fn freshness_proof(&self) -> Option<FreshnessProof> {
        self.state.is_fresh().then_some(FreshnessProof(()))
    }

    /// Whether the caches are fresh enough for decisions now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.freshness_proof().is_some()
    }

    /// Whether the caches were not reset during the last `time`. Then the caches have applied every
    /// change in that time, up to the last read.
    #[must_use]
    pub fn has_followed_for(&self, time: Duration) -> bool {
        self.state.followed_for() > time
    }

    /// Time since the last successful read began.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.state.lag()
    }

    /// Must be called after a commit. Wakes the other replicas, and returns when this replica's
    /// caches have applied the commit. If the wait exceeds one second, the caches are not used
    /// until the next successful read.
    pub async fn wait_for_commit(&self) {
        wake::notify_replicas(&self.redis, &self.channel);
        if !self.state.wait_for_new_read().await {
            self.state.expire();
        }
    }

    /// Waits until the caches have applied every committed transaction whose id is smaller than the
    /// revision's position; false when the wait exceeds one second. Concurrent waits share one
    /// read.
    pub async fn wait_for_revision(&self, revision: Revision) -> bool {
        self.horizon() >= revision.position || self.state.wait_for_new_read().await
    }

    /// Whether the database has the transactions of the revision, by the epochs at the last read of
    /// the feed; `None` when the epoch of the revision was unknown.
    pub(super) fn last_read_has_transactions_of(&self, revision: Revision) -> Option<bool> {
        self.state.progress.has_transactions_of(revision)
    }

    /// Whether the server of this generation had reached the revision at the last read of the feed.
    pub(super) fn last_read_has_reached(&self, revision: Revision, server_generation: u64) -> bool {
        self.state.progress.has_reached(revision, server_generation)
    }

    /// Reads the feed if the caches are not fresh; returns whether they are fresh now.
    pub async fn refresh(&self) -> bool {
        self.is_fresh() || self.state.wait_for_new_read().await
    }

    /// A transaction id. Every transaction with a smaller id has ended, and the caches have applied
    /// the changes of these transactions.
    #[must_use]
    pub fn horizon(&self) -> u64 {
        self.state.progress.horizon()
    }

    /// Records a snapshot of Postgres. Must be called before data that was read in this snapshot is
    /// cached or used for a decision. Later consistency tokens cover this snapshot. If the snapshot
    /// is of another epoch than the last read of the feed, waits for the next read.
    ///
    /// # Errors
    /// UNAVAILABLE when the feed was not read in the epoch of the snapshot: a token would have the
    /// wrong epoch, and the data may be of a server that was replaced.
    pub async fn record_snapshot(&self, snapshot: Snapshot) -> Result<()> {
        let progress = &self.state.progress;
        if progress.epoch() != snapshot.epoch {
            self.state.wait_for_new_read().await;
            if progress.epoch() != snapshot.epoch {
                let text = "the database was replaced just now; try again";
                return Err(Error::refused(ErrorReason::StoreUnavailable, text));
            }
        }
        progress.record_snapshot(snapshot.xmax);
        Ok(())
    }

    /// The consistency token for a decision. `horizon` is the value of [`Feed::horizon`] before the
    /// decision's data was read.
    ///
    /// # Errors
    /// INTERNAL when the token can't be sealed. This does not happen with a valid key.
    pub fn token(&self, horizon: u64) -> Result<String> {
        self.state.progress.token(horizon)
    }

    /// The consistency token for a transaction that is about to commit, in the epoch that it reads.
    ///
    /// # Errors
    /// INTERNAL when the token can't be sealed. This does not happen with a valid key.
    pub fn token_for_transaction(&self, transaction: u64, epoch: u64) -> Result<String> {
        self.state.progress.token_for_transaction(transaction, epoch)
    }

    /// Opens a consistency token.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when no replica sealed this token.
    pub fn open(&self, token: &str) -> Result<Revision> {
        self.state.progress.open(token).ok_or(Error::Field(
            ErrorReason::ConsistencyTokenInvalid,
            "consistency_token",
            "must be a token that this service returned",
        ))
    }
}
