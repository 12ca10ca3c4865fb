//! Tells the streams of each tenant what changed: one hub per tenant that somebody
//! watches, so that a change is looked at once, however many watch.

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
    feed::{Change, Feed, Follow},
    ids::TenantId,
};

/// How often something is sent at least. Well below the 10 seconds that are
/// promised, which a slow query must not break.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How often a hub looks around, whatever happens.
const TICK: Duration = Duration::from_secs(1);

/// How long after a message the next one comes at the soonest: what changes meanwhile is
/// one message, however many streams it goes to.
const SPACING: Duration = Duration::from_millis(50);

/// When the feed has not been read for so long its watchers must go elsewhere.
const LOST: Duration = Duration::from_secs(5);

/// News that a slow stream may be behind by.
const BACKLOG: usize = 16;

/// What the streams of a tenant are told.
pub struct News {
    /// Whose permissions may have changed.
    pub subjects: Subjects,
    /// The consistency token that covers it.
    pub token: String,
    /// Whether clients are told, or only streams: their callers' sessions may have
    /// ended.
    pub for_clients: bool,
}

/// Who watches which tenants.
#[derive(Default)]
pub struct Watchers {
    hubs: Mutex<HashMap<TenantId, Arc<Hub>>>,
    stopped: AtomicBool,
}

/// Where the streams of one tenant meet.
struct Hub {
    changed: Mutex<Changed>,
    woken: Notify,
    closed: AtomicBool,
    news: broadcast::Sender<Arc<News>>,
}

impl Watchers {
    /// The news of a tenant from here on. They end when the server stops, or the
    /// feed can't be followed.
    pub fn subscribe(
        self: &Arc<Self>,
        tenant: TenantId,
        db: &Db,
        feed: &Feed,
    ) -> broadcast::Receiver<Arc<News>> {
        let mut hubs = self.hubs();
        if let Some(hub) = hubs.get(&tenant) {
            return hub.news.subscribe();
        }
        let (news, receiver) = broadcast::channel(BACKLOG);
        // After a stop nobody sends any more, and the news have ended.
        if !self.stopped.load(Ordering::Acquire) {
            let hub = Arc::new(Hub {
                changed: Mutex::default(),
                woken: Notify::new(),
                closed: AtomicBool::new(false),
                news,
            });
            hubs.insert(tenant, hub.clone());
            let (watchers, db, feed) = (self.clone(), db.clone(), feed.clone());
            tokio::spawn(async move { hub.run(&watchers, tenant, &db, &feed).await });
        }
        receiver
    }

    /// Ends all news, for good.
    pub fn stop(&self) {
        let mut hubs = self.hubs();
        self.stopped.store(true, Ordering::Release);
        for (_, hub) in hubs.drain() {
            hub.closed.store(true, Ordering::Release);
            hub.woken.notify_one();
        }
    }

    /// Forgets a hub, with `unused` only if nobody listens; says whether it did.
    fn forget(&self, tenant: TenantId, hub: &Hub, unused: bool) -> bool {
        let mut hubs = self.hubs();
        if unused && hub.news.receiver_count() > 0 {
            return false;
        }
        hubs.remove(&tenant);
        true
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follow for Watchers {
    fn apply(&self, change: &Change) {
        if let Some(hub) = self.hubs().get(&change.tenant) {
            hub.changed().add(Some(change.kind), change.subject);
            hub.woken.notify_one();
        }
    }

    fn clear(&self) {
        for hub in self.hubs().values() {
            hub.changed().add_all();
            hub.woken.notify_one();
        }
    }
}

impl Hub {
    async fn run(&self, watchers: &Watchers, tenant: TenantId, db: &Db, feed: &Feed) {
        let mut sent = Instant::now();
        loop {
            time::timeout(TICK, self.woken.notified()).await.ok();
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            if feed.lag() > LOST {
                watchers.forget(tenant, self, false);
                return;
            }
            if self.news.receiver_count() == 0 && watchers.forget(tenant, self, true) {
                return;
            }
            let is_late = sent.elapsed() >= HEARTBEAT;
            match self.gather(tenant, db, feed, is_late).await {
                Ok(Some(news)) => {
                    if news.for_clients {
                        sent = Instant::now();
                    }
                    // Those who left don't matter.
                    self.news.send(Arc::new(news)).ok();
                    time::sleep(SPACING).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "watchers can't be told");
                    watchers.forget(tenant, self, false);
                    return;
                }
            }
        }
    }

    /// What there is to tell, with `is_late` even if nothing changed.
    async fn gather(
        &self,
        tenant: TenantId,
        db: &Db,
        feed: &Feed,
        is_late: bool,
    ) -> Result<Option<News>> {
        // Before the changes are taken: all below it are among them, or were told.
        let horizon = feed.horizon();
        let changed = mem::take(&mut *self.changed());
        if changed.is_empty() && !is_late {
            return Ok(None);
        }
        let for_clients = is_late || !changed.is_quiet();
        let subjects = changed.subjects(db, tenant).await;
        Ok(Some(News { subjects, token: feed.token(horizon)?, for_clients }))
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subjects {
    /// The users by name, and whether it is everybody.
    #[must_use]
    pub fn spelled(&self) -> (Vec<String>, bool) {
        match self {
            Self::Users(users) => (users.iter().map(Uuid::to_string).collect(), false),
            Self::All => (Vec::new(), true),
        }
    }
}
