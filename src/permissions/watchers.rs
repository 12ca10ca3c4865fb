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

use super::changed::{ChangedSubjects, PendingChanges};
use crate::{
    db::Db,
    error::Result,
    feed::{Change, ChangeListener, Feed},
    ids::TenantId,
};

/// The time after which a message is sent even without a change. The API promises a message every
/// 10 seconds; the difference is time for a slow query.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which a hub checks its state when no change wakes the hub.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The minimum time between two messages. The changes within this time are combined into one
/// message. This limits the cost of many streams.
const SPACING: Duration = Duration::from_millis(50);

/// The maximum time without a successful read of the feed. After this time, the streams of this
/// replica end.
const FEED_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of messages that wait for a slow stream. The stream loses older messages.
const BACKLOG: usize = 16;

/// One message from a hub to all streams of a tenant.
pub struct ChangeMessage {
    /// The subjects whose permissions may have changed.
    pub subjects: ChangedSubjects,
    /// The consistency token that covers the changes.
    pub token: String,
    /// Whether the streams send this message to their clients. If false, only sessions have ended,
    /// and each stream only checks that its caller is still admitted.
    pub for_clients: bool,
}

/// The hubs of all tenants that have a stream.
#[derive(Default)]
pub struct Watchers {
    hubs: Mutex<HashMap<TenantId, Arc<Hub>>>,
    stopped: AtomicBool,
}

/// Collects the changes of one tenant and sends them to its streams.
struct Hub {
    pending: Mutex<PendingChanges>,
    wake_up: Notify,
    closed: AtomicBool,
    sender: broadcast::Sender<Arc<ChangeMessage>>,
}

impl Watchers {
    /// Subscribes to the messages of a tenant's hub from now on. The receiver is closed when the
    /// server stops, and when the feed can't be read.
    pub fn subscribe(
        self: &Arc<Self>,
        tenant: TenantId,
        db: &Db,
        feed: &Feed,
    ) -> broadcast::Receiver<Arc<ChangeMessage>> {
        let mut hubs = self.hubs();
        if let Some(hub) = hubs.get(&tenant) {
            return hub.sender.subscribe();
        }
        let (sender, receiver) = broadcast::channel(BACKLOG);
        // After `stop`, the sender is dropped here, which closes the receiver immediately.
        if !self.stopped.load(Ordering::Acquire) {
            let hub = Arc::new(Hub {
                pending: Mutex::default(),
                wake_up: Notify::new(),
                closed: AtomicBool::new(false),
                sender,
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

    /// Removes the hub of a tenant. Its streams end when the hub is dropped.
    fn remove(&self, tenant: TenantId) {
        self.hubs().remove(&tenant);
    }

    /// Removes the hub of a tenant, unless a stream still receives its messages. Returns whether the
    /// hub was removed.
    fn remove_if_unused(&self, tenant: TenantId, hub: &Hub) -> bool {
        let mut hubs = self.hubs();
        if hub.sender.receiver_count() > 0 {
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
            hub.pending().add(Some(change.kind), change.subject);
            hub.wake_up.notify_one();
        }
    }

    fn clear(&self) {
        for hub in self.hubs().values() {
            hub.pending().add_all();
            hub.wake_up.notify_one();
        }
    }
}

impl Hub {
    /// Sends messages until the hub is closed or removed.
    async fn run(&self, watchers: &Watchers, tenant: TenantId, db: &Db, feed: &Feed) {
        let mut last_sent = Instant::now();
        loop {
            time::timeout(CHECK_INTERVAL, self.wake_up.notified()).await.ok();
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            if feed.lag() > FEED_TIMEOUT {
                watchers.remove(tenant);
                return;
            }
            if self.sender.receiver_count() == 0 && watchers.remove_if_unused(tenant, self) {
                return;
            }
            let is_heartbeat_due = last_sent.elapsed() >= HEARTBEAT_INTERVAL;
            match self.next_message(tenant, db, feed, is_heartbeat_due).await {
                Ok(Some(message)) => {
                    if message.for_clients {
                        last_sent = Instant::now();
                    }
                    // An error only means that no stream is left.
                    self.sender.send(Arc::new(message)).ok();
                    time::sleep(SPACING).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the streams end, because changes can't be sent");
                    watchers.remove(tenant);
                    return;
                }
            }
        }
    }

    /// Takes the pending changes, and returns the message that reports them; `None` when there is
    /// nothing to send. With `is_heartbeat_due`, there is always a message.
    async fn next_message(
        &self,
        tenant: TenantId,
        db: &Db,
        feed: &Feed,
        is_heartbeat_due: bool,
    ) -> Result<Option<ChangeMessage>> {
        // Read the horizon before the changes. Every change before the horizon is then among these
        // changes or was sent before.
        let horizon = feed.horizon();
        let changes = mem::take(&mut *self.pending());
        if changes.is_empty() && !is_heartbeat_due {
            return Ok(None);
        }
        let for_clients = is_heartbeat_due || !changes.has_nothing_to_report();
        let subjects = changes.subjects(db, tenant).await;
        Ok(Some(ChangeMessage { subjects, token: feed.token(horizon)?, for_clients }))
    }

    fn pending(&self) -> MutexGuard<'_, PendingChanges> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChangedSubjects {
    /// The fields `user_ids` and `all_subjects` of a message to a client.
    #[must_use]
    pub fn to_message_fields(&self) -> (Vec<String>, bool) {
        match self {
            Self::Listed(users) => (users.iter().map(Uuid::to_string).collect(), false),
            Self::All => (Vec::new(), true),
        }
    }
}
