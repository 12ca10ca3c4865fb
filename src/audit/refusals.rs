//! Records refused calls of known subjects. A refusal is recorded before the caller gets the
//! response. In a flood, the further refusals of a minute become one event. Calls refused by a
//! rate limit are only counted: one event per minute for each tenant and limit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Actor, CorrelationId, Event, EventKind, Origin, record_alone};
use crate::{
    db::Db,
    error::Result,
    ids::{TenantId, UserId},
};

/// Maximum number of refusals per subject, tenant and minute that are recorded as single
/// events.
const RECORDED_SINGLY: u64 = 20;

/// Maximum number of limits that are counted between two flushes; the metrics count the rest.
/// The bound is needed because callers can name any number of tenants, even unknown ones.
const LIMITS: usize = 10_000;

/// Records refused calls.
pub struct Refusals {
    db: Db,
    /// Refusals since the last flush, by tenant and subject.
    seen: Mutex<HashMap<(TenantId, UserId), Seen>>,
    /// Calls refused by a rate limit since the last flush.
    limited: Mutex<HashMap<Limit, u64>>,
}

/// A rate limit, as it applies to one tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Limit {
    tenant: TenantId,
    class: &'static str,
    by: &'static str,
}

#[derive(Default)]
struct Seen {
    /// Number of refusals recorded as single events.
    single: u64,
    /// Number of refusals that were only counted.
    counted: u64,
    /// The caller of the last refusal that was counted.
    actor: Option<Actor>,
}

/// A refused call.
pub struct Refusal {
    /// The tenant in which the call was refused.
    pub tenant: TenantId,
    /// The subject that was refused.
    pub subject: UserId,
    pub actor: Actor,
    pub event: Event,
}

impl Refusals {
    #[must_use]
    pub fn new(db: Db) -> Arc<Self> {
        Arc::new(Self { db, seen: Mutex::default(), limited: Mutex::default() })
    }

    /// Records a refusal, even if the client cancels the call. If Postgres is unavailable, the
    /// call is still refused, and the log names the request without an event.
    pub async fn record(&self, refusal: Refusal) {
        if !self.is_single(&refusal) {
            return;
        }
        let db = self.db.clone();
        let recorded = tokio::spawn(async move {
            let Refusal { tenant, actor, event, .. } = refusal;
            let correlation_id = actor.origin.correlation_id.clone();
            if let Err(error) = record_alone(&db, tenant, &actor, event).await {
                tracing::error!(
                    %error, %tenant, request_id = %correlation_id,
                    "a refusal was not recorded"
                );
            }
        });
        // The task logs its own failure. A panic has been logged too.
        recorded.await.ok();
    }

    /// Counts a call refused by a rate limit. `class` names the limit, and `by` what it counts
    /// by. Refusals without a known tenant are not counted.
    pub fn limited(&self, tenant: TenantId, class: &'static str, by: &'static str) {
        if tenant == TenantId::UNKNOWN {
            return;
        }
        self.count_limited(Limit { tenant, class, by }, 1);
    }

    /// Adds to the count of a limit, unless [`LIMITS`] others are counted.
    fn count_limited(&self, limit: Limit, count: u64) {
        let mut limited = lock(&self.limited);
        if limited.len() < LIMITS || limited.contains_key(&limit) {
            *limited.entry(limit).or_default() += count;
        }
    }

    /// Records the refusals that were only counted.
    ///
    /// # Errors
    /// When Postgres is unavailable. Counts that were not recorded are kept for the next flush.
    pub async fn flush(&self) -> Result<()> {
        self.flush_seen().await.and(self.flush_limited().await)
    }

    async fn flush_limited(&self) -> Result<()> {
        let limited = std::mem::take(&mut *lock(&self.limited));
        let mut outcome = Ok(());
        for (limit, count) in limited {
            if let Err(error) = self.record_limited(limit, count).await {
                outcome = Err(error);
                self.count_limited(limit, count);
            }
        }
        outcome
    }

    async fn record_limited(&self, limit: Limit, count: u64) -> Result<()> {
        let Limit { tenant, class, by } = limit;
        if self.db.cipher(tenant).await?.is_none() {
            return Ok(());
        }
        // The event stands for many calls, so it gets an id of its own, which the log names.
        let correlation_id = CorrelationId::new();
        tracing::warn!(
            %tenant, class, by, count, request_id = %correlation_id,
            "calls were refused for their rate"
        );
        let actor = Actor::anonymous(&Origin { correlation_id, ip: None, user_agent: None });
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
        if of_subject.single < RECORDED_SINGLY {
            of_subject.single += 1;
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
