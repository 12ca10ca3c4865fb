//! Follows the feed.
//!
//! Ids are handed out before commit, so a reader that remembers the last id loses
//! whatever commits late. This one remembers the horizon of the snapshot that it
//! read in: every transaction below it had ended. It reads all changes from that
//! horizon on, each time, and passes on those that it has not seen; so a commit is
//! seen by the first read after it, even while an older transaction holds the
//! horizon back.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fred::clients::{Client, SubscriberClient};
use tokio::{
    sync::{Notify, watch},
    time,
};

use super::{Change, Kind, wake};
use crate::{db::Db, error::Result, ids::TenantId};

/// The longest pause between reads.
const POLL: Duration = Duration::from_millis(250);

/// For how long after a read began memory may answer: the promise of
/// `minimize_latency`.
const BOUND: Duration = Duration::from_secs(1);

/// Who is told of changes.
pub trait Follow: Send + Sync + 'static {
    /// Something changed.
    fn apply(&self, change: &Change);
    /// Changes may have been missed: forget everything.
    fn clear(&self);
}

/// The feed as this replica follows it. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<SharedState>,
    redis: Client,
}

struct SharedState {
    started: Instant,
    /// Until when memory may answer, in ms since `started`.
    fresh_until: AtomicU64,
    /// How many reads have begun, and how many of those have ended well.
    begun: AtomicU64,
    ended: watch::Sender<u64>,
    woken: Arc<Notify>,
}

impl Feed {
    /// Begins to follow, and tells `followers` of each change, until the
    /// database's connections are closed.
    pub fn follow(
        db: Db,
        redis: Client,
        subscriber: &SubscriberClient,
        followers: Vec<Arc<dyn Follow>>,
    ) -> Self {
        let woken = Arc::new(Notify::new());
        let shared = Arc::new(SharedState {
            started: Instant::now(),
            fresh_until: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            woken: woken.clone(),
        });
        wake::listen(subscriber, woken);
        let follower = Follower { db, followers, horizon: None, seen: HashSet::new() };
        tokio::spawn(follower.run(shared.clone()));
        Self { shared, redis }
    }

    /// Whether memory is no staler than it may be.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.shared.now() < self.shared.fresh_until.load(Ordering::Acquire)
    }

    /// After a commit: returns once this replica's memory has it, or does not
    /// answer any more; and wakes the others.
    pub async fn catch_up(&self) {
        wake::others(&self.redis);
        // A read that begins from here on sees the commit.
        let wanted = self.shared.begun.load(Ordering::Acquire) + 1;
        self.shared.woken.notify_one();
        let mut ended = self.shared.ended.subscribe();
        let caught_up = time::timeout(BOUND, ended.wait_for(|ended| *ended >= wanted)).await;
        if !matches!(caught_up, Ok(Ok(_))) {
            self.shared.fresh_until.store(0, Ordering::Release);
        }
    }
}

impl SharedState {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

struct Follower {
    db: Db,
    followers: Vec<Arc<dyn Follow>>,
    /// Every transaction below it had ended when the feed was last read.
    horizon: Option<i64>,
    /// The changes at or above the horizon that were passed on.
    seen: HashSet<i64>,
}

impl Follower {
    async fn run(mut self, shared: Arc<SharedState>) {
        while !self.db.is_closed() {
            let began = shared.now();
            let number = shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
            match self.read().await {
                Ok(()) => {
                    let bound = u64::try_from(BOUND.as_millis()).unwrap_or(u64::MAX);
                    shared.fresh_until.store(began + bound, Ordering::Release);
                    shared.ended.send_replace(number);
                }
                Err(error) => tracing::warn!(%error, "the change feed can't be read"),
            }
            time::timeout(POLL, shared.woken.notified()).await.ok();
        }
    }

    async fn read(&mut self) -> Result<()> {
        let from = self.horizon.unwrap_or(i64::MAX);
        let rows = sqlx::query!(
            r#"
            select horizon as "horizon!", change_id, tenant_id, kind, subject_id
            from read_changes($1)
            "#,
            from,
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut seen = HashSet::new();
        for row in &rows {
            self.horizon = Some(row.horizon);
            let (Some(id), Some(tenant), Some(subject)) =
                (row.change_id, row.tenant_id, row.subject_id)
            else {
                continue;
            };
            seen.insert(id);
            if self.seen.contains(&id) {
                continue;
            }
            let kind = row.kind.as_deref().and_then(Kind::parse);
            let change = kind.map(|kind| Change { tenant: TenantId(tenant), kind, subject });
            for follower in &self.followers {
                match &change {
                    Some(change) => follower.apply(change),
                    // Of a kind that a newer version writes.
                    None => follower.clear(),
                }
            }
        }
        // Those below the new horizon are not read again; the few that are kept
        // too long do no harm.
        self.seen = seen;
        Ok(())
    }
}
