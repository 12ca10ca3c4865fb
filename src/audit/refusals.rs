//! What is refused to a subject that is known: recorded before its caller hears of
//! it, but for floods: of those the rest of a minute is one event. Calls that are refused
//! for their rate are counted alone: one event a minute for each tenant and limit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Actor, Event, EventKind, Origin, RequestId, record_alone};
use crate::{
    db::Db,
    error::Result,
    ids::{TenantId, UserId},
};

/// A subject's refusals in one tenant and minute that are recorded one by one, at most.
const SINGLY: u64 = 20;

/// Limits of tenants that are counted between two flushes, at most; the metrics have
/// what is beyond. Tenants that do not exist can be named without end.
const LIMITS: usize = 10_000;

/// Records refusals.
pub struct Refusals {
    db: Db,
    /// Since the last flush.
    seen: Mutex<HashMap<(TenantId, UserId), Seen>>,
    /// Calls that were refused for their rate, since the last flush.
    limited: Mutex<HashMap<Limit, u64>>,
}

/// A limit that holds for a tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Limit {
    tenant: TenantId,
    class: &'static str,
    by: &'static str,
}

#[derive(Default)]
struct Seen {
    /// Recorded one by one.
    singly: u64,
    /// Just counted.
    counted: u64,
    /// Of the last that was counted.
    actor: Option<Actor>,
}

/// A refusal.
pub struct Refusal {
    /// In which tenant.
    pub tenant: TenantId,
    /// To whom.
    pub subject: UserId,
    /// Who asked.
    pub actor: Actor,
    /// What is recorded of it.
    pub event: Event,
}

impl Refusals {
    /// With nothing seen.
    #[must_use]
    pub fn new(db: Db) -> Arc<Self> {
        Arc::new(Self { db, seen: Mutex::default(), limited: Mutex::default() })
    }

    /// Records a refusal, whether or not the caller still waits. Where Postgres is
    /// away it is refused all the same, and the log says what has no record.
    pub async fn record(&self, refusal: Refusal) {
        if !self.is_single(&refusal) {
            return;
        }
        let db = self.db.clone();
        let recorded = tokio::spawn(async move {
            let Refusal { tenant, actor, event, .. } = refusal;
            let request_id = actor.origin.request_id.clone();
            if let Err(error) = record_alone(&db, tenant, &actor, event).await {
                tracing::error!(%error, %tenant, %request_id, "a refusal was not recorded");
            }
        });
        // It logs its own failure; one that panicked has been logged too.
        recorded.await.ok();
    }

    /// Counts a call that was refused for its rate: of which class, and by whose calls it
    /// was counted. Of a tenant that does not exist nothing is kept.
    pub fn limited(&self, tenant: TenantId, class: &'static str, by: &'static str) {
        if tenant == TenantId::UNKNOWN {
            return;
        }
        let mut limited = lock(&self.limited);
        let limit = Limit { tenant, class, by };
        if limited.len() < LIMITS || limited.contains_key(&limit) {
            *limited.entry(limit).or_default() += 1;
        }
    }

    /// Records the refusals that were just counted.
    ///
    /// # Errors
    /// When Postgres is away; what is not recorded then is counted on.
    pub async fn flush(&self) -> Result<()> {
        self.flush_seen().await.and(self.flush_limited().await)
    }

    async fn flush_limited(&self) -> Result<()> {
        let limited = std::mem::take(&mut *lock(&self.limited));
        let mut outcome = Ok(());
        for (limit, count) in limited {
            if let Err(error) = self.record_limited(limit, count).await {
                outcome = Err(error);
                *lock(&self.limited).entry(limit).or_default() += count;
            }
        }
        outcome
    }

    async fn record_limited(&self, limit: Limit, count: u64) -> Result<()> {
        let Limit { tenant, class, by } = limit;
        if self.db.cipher(tenant).await?.is_none() {
            return Ok(());
        }
        // It is of many calls: the log says of which id it is.
        let request_id = RequestId::new();
        tracing::warn!(%tenant, class, by, count, %request_id, "calls were refused for their rate");
        let actor = Actor::anonymous(&Origin { request_id, ip: None, user_agent: None });
        let event = Event::new(EventKind::CallLimited).target(tenant.0);
        let event = event.detail("class", class).detail("by", by).detail("count", count);
        record_alone(&self.db, tenant, &actor, event).await
    }

    async fn flush_seen(&self) -> Result<()> {
        let seen = std::mem::take(&mut *lock(&self.seen));
        let mut outcome = Ok(());
        for (of, Seen { counted, actor, .. }) in seen {
            let Some(actor) = actor else { continue };
            let (tenant, subject) = of;
            let event =
                Event::new(EventKind::RefusalsCounted).target(subject.0).detail("count", counted);
            if let Err(error) = record_alone(&self.db, tenant, &actor, event).await {
                outcome = Err(error);
                let mut seen = lock(&self.seen);
                let since = seen.entry(of).or_default();
                since.counted += counted;
                since.actor.get_or_insert(actor);
            }
        }
        outcome
    }

    fn is_single(&self, refusal: &Refusal) -> bool {
        let mut seen = lock(&self.seen);
        let of_subject = seen.entry((refusal.tenant, refusal.subject)).or_default();
        if of_subject.singly < SINGLY {
            of_subject.singly += 1;
            return true;
        }
        of_subject.counted += 1;
        of_subject.actor = Some(refusal.actor.clone());
        false
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
