//! Distributes changes to the `WatchPermissions` streams. Each tenant with a stream has one hub,
//! so a change is looked up once for any number of streams.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, broadcast},
    time::{self, Instant},
};
use uuid::Uuid;

use super::changed::{Changed, Subjects};
use crate::{
    db::Db,
    error::Result,
    feed::{Change, ChangeListener, Feed},
    ids::TenantId,
};

/// The maximum time between two messages. Well below the 10 seconds that the API promises, to
/// leave time for a slow query.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Interval at which a hub checks its state when no change wakes the hub.
const TICK: Duration = Duration::from_secs(1);

/// The minimum time between two messages. Changes in this time are combined into one message,
/// which limits the cost of many streams.
const SPACING: Duration = Duration::from_millis(50);

/// Maximum time without a successful read of the feed. After this time, the streams of this
/// replica end.
const FEED_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of messages that a slow stream may lag behind.
const BACKLOG: usize = 16;

/// One message to all streams of a tenant.
pub struct ChangeMessage {
    /// The subjects whose permissions may have changed.
    pub subjects: Subjects,
    /// The consistency token that covers the changes.
    pub token: String,
    /// Whether streams send this message to their clients. If false, a session has ended, and
    /// streams only check that their callers are still admitted.
    pub for_clients: bool,
}

/// The hubs of all tenants that are being watched.
#[derive(Default)]
pub struct Watchers {
    hubs: Mutex<HashMap<TenantId, Arc<Hub>>>,
    stopped: AtomicBool,
}

/// Collects the changes of one tenant and sends them to its streams.
struct Hub {
    changed: Mutex<Changed>,
    wake_up: Notify,
    closed: AtomicBool,
    news: broadcast::Sender<Arc<ChangeMessage>>,
}

impl Watchers {
    /// Subscribes to a tenant's messages from now on. The messages end when the server stops, or
    /// when the feed can't be read.
    pub fn subscribe(
        self: &Arc<Self>,
        tenant: TenantId,
        db: &Db,
        feed: &Feed,
    ) -> broadcast::Receiver<Arc<ChangeMessage>> {
        let mut hubs = self.hubs();
        if let Some(hub) = hubs.get(&tenant) {
            return hub.news.subscribe();
        }
        let (news, receiver) = broadcast::channel(BACKLOG);
        // After `stop`, the sender is dropped here, so the receiver ends immediately.
        if !self.stopped.load(Ordering::Acquire) {
            let hub = Arc::new(Hub {
                changed: Mutex::default(),
                wake_up: Notify::new(),
                closed: AtomicBool::new(false),
                news,
            });
            hubs.insert(tenant, hub.clone());
            let (watchers, db, feed) = (self.clone(), db.clone(), feed.clone());
            tokio::spawn(async move { hub.run(&watchers, tenant, &db, &feed).await });
        }
        receiver
    }

    /// Ends all streams and accepts no new ones.
    pub fn stop(&self) {
        let mut hubs = self.hubs();
        self.stopped.store(true, Ordering::Release);
        for (_, hub) in hubs.drain() {
            hub.closed.store(true, Ordering::Release);
            hub.wake_up.notify_one();
        }
    }

    /// Removes a hub. Returns whether the hub was removed. With `only_if_unused`, a hub with
    /// receivers is not removed.
    fn forget(&self, tenant: TenantId, hub: &Hub, only_if_unused: bool) -> bool {
        let mut hubs = self.hubs();
        if only_if_unused && hub.news.receiver_count() > 0 {
            return false;
        }
        hubs.remove(&tenant);
        true
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChangeListener for Watchers {
    fn apply(&self, change: &Change) {
        if let Some(hub) = self.hubs().get(&change.tenant) {
            hub.changed().add(Some(change.kind), change.subject);
            hub.wake_up.notify_one();
        }
    }

    fn clear(&self) {
        for hub in self.hubs().values() {
            hub.changed().add_all();
            hub.wake_up.notify_one();
        }
    }
}

impl Hub {
    async fn run(&self, watchers: &Watchers, tenant: TenantId, db: &Db, feed: &Feed) {
        let mut last_sent = Instant::now();
        loop {
            time::timeout(TICK, self.wake_up.notified()).await.ok();
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            if feed.lag() > FEED_TIMEOUT {
                watchers.forget(tenant, self, false);
                return;
            }
            if self.news.receiver_count() == 0 && watchers.forget(tenant, self, true) {
                return;
            }
            let is_late = last_sent.elapsed() >= HEARTBEAT;
            match self.gather(tenant, db, feed, is_late).await {
                Ok(Some(news)) => {
                    if news.for_clients {
                        last_sent = Instant::now();
                    }
                    // An error only means that no stream is left.
                    self.news.send(Arc::new(news)).ok();
                    time::sleep(SPACING).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "can't send changes to watchers: their streams end");
                    watchers.forget(tenant, self, false);
                    return;
                }
            }
        }
    }

    /// The next message; `None` when there is nothing to send. With `is_late`, there is always
    /// a message.
    async fn gather(
        &self,
        tenant: TenantId,
        db: &Db,
        feed: &Feed,
        is_late: bool,
    ) -> Result<Option<ChangeMessage>> {
        // Take the horizon before the changes. Every change below the horizon is then among these
        // changes or was sent before.
        let horizon = feed.horizon();
        let changed = mem::take(&mut *self.changed());
        if changed.is_empty() && !is_late {
            return Ok(None);
        }
        let for_clients = is_late || !changed.has_nothing_to_report();
        let subjects = changed.subjects(db, tenant).await;
        Ok(Some(ChangeMessage { subjects, token: feed.token(horizon)?, for_clients }))
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subjects {
    /// The user ids as text, and whether all subjects are meant.
    #[must_use]
    pub fn spelled(&self) -> (Vec<String>, bool) {
        match self {
            Self::Users(users) => (users.iter().map(Uuid::to_string).collect(), false),
            Self::All => (Vec::new(), true),
        }
    }
}
