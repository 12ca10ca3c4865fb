//! Records refused calls of known subjects. A refusal is recorded before the caller gets the
//! response. Each refusal becomes one event, up to a maximum number for each subject and minute.
//! The further refusals of that minute are counted, and become one event together. Calls refused by
//! a rate limit are only counted: one event per minute for each tenant and limit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Actor, CorrelationId, Event, EventKind, Origin, record_in_own_transaction};
use crate::{
    concurrency::step::bounded,
    db::Db,
    error::Result,
    ids::{SubjectId, TenantId},
};

/// Maximum number of refusals per subject, tenant and minute that are recorded as single
/// events.
const MAX_SINGLE_EVENTS: u64 = 20;

/// Maximum number of pairs of tenant and rate limit that are counted between two flushes. It bounds
/// the memory, because clients can send the ids of any number of tenants, even of tenants that do
/// not exist. The metrics count all refusals.
const MAX_LIMITS: usize = 10_000;

/// Records refused calls.
pub struct Refusals {
    db: Db,
    /// Refusals since the last flush, by tenant and subject.
    by_subject: Mutex<HashMap<(TenantId, SubjectId), RefusalCounts>>,
    /// Calls refused by a rate limit since the last flush.
    by_limit: Mutex<HashMap<TenantLimit, u64>>,
}

/// A rate limit, and the tenant whose calls it refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct TenantLimit {
    tenant: TenantId,
    /// The name of the limit, such as `sign_in`.
    class: &'static str,
    /// To what the limit applies: `network`, `tenant` or `account`.
    by: &'static str,
}

/// The refusals of one subject in one tenant since the last flush.
#[derive(Default)]
struct RefusalCounts {
    /// Number of refusals recorded as single events.
    single: u64,
    /// Number of refusals that were only counted.
    counted: u64,
    /// The caller of the last counted refusal.
    actor: Option<Actor>,
}

/// A refused call.
pub struct Refusal {
    /// The tenant in which the call was refused.
    pub tenant: TenantId,
    /// The subject that was refused.
    pub subject: SubjectId,
    pub actor: Actor,
    pub event: Event,
}

impl Refusals {
    #[must_use]
    pub fn new(db: Db) -> Arc<Self> {
        Arc::new(Self { db, by_subject: Mutex::default(), by_limit: Mutex::default() })
    }

    /// Records a refusal, even if the client cancels the call. If Postgres is unavailable, the call
    /// is still refused, and the log contains the correlation id of the call that has no event.
    pub async fn record(&self, refusal: Refusal) {
        if !self.count_refusal(&refusal) {
            return;
        }
        let db = self.db.clone();
        let task = tokio::spawn(async move {
            let Refusal { tenant, actor, event, .. } = refusal;
            let correlation_id = actor.origin.correlation_id.clone();
            if let Err(error) = record_in_own_transaction(&db, tenant, &actor, event).await {
                tracing::error!(
                    %error, %tenant, request_id = %correlation_id,
                    "a refusal was not recorded"
                );
            }
        });
        // The task has logged its failure, and a panic is logged too.
        task.await.ok();
    }

    /// Counts a call refused by a rate limit. `class` is the name of the limit. `by` is
    /// `network`, `tenant` or `account`: to what the limit applies. Calls without a known tenant
    /// are not counted.
    pub fn record_rate_limit(&self, tenant: TenantId, class: &'static str, by: &'static str) {
        if tenant == TenantId::UNKNOWN {
            return;
        }
        self.add_limited_calls(TenantLimit { tenant, class, by }, 1);
    }

    /// Adds to the count of a limit, unless [`MAX_LIMITS`] other limits are counted already.
    fn add_limited_calls(&self, limit: TenantLimit, count: u64) {
        let mut by_limit = lock(&self.by_limit);
        if by_limit.len() < MAX_LIMITS || by_limit.contains_key(&limit) {
            *by_limit.entry(limit).or_default() += count;
        }
    }

    /// Records the refusals that were only counted.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable. The next flush records the counts that were not
    /// recorded.
    pub async fn flush(&self) -> Result<()> {
        // Both flushes run, even if the first one fails.
        self.flush_refusals().await.and(self.flush_limited_calls().await)
    }

    async fn flush_limited_calls(&self) -> Result<()> {
        let by_limit = std::mem::take(&mut *lock(&self.by_limit));
        let mut result = Ok(());
        for (limit, count) in by_limit {
            // After a failure, this count and the further counts wait for the next flush.
            if result.is_ok() {
                result = bounded(self.record_limited_calls(limit, count)).await;
            }
            if result.is_err() {
                self.add_limited_calls(limit, count);
            }
        }
        result
    }

    async fn record_limited_calls(&self, limit: TenantLimit, count: u64) -> Result<()> {
        let TenantLimit { tenant, class, by } = limit;
        // A tenant without a cipher does not exist, so it has no audit trail.
        if self.db.cipher(tenant).await?.is_none() {
            return Ok(());
        }
        // The event stands for many calls, so it gets a new correlation id, which is also logged.
        let correlation_id = CorrelationId::new();
        tracing::warn!(
            %tenant, class, by, count, request_id = %correlation_id,
            "calls were refused by a rate limit"
        );
        let actor = Actor::anonymous(&Origin { correlation_id, ip: None, user_agent: None });
        let event = Event::new(EventKind::CallLimited).target(tenant.0);
        let event = event.detail("class", class).detail("by", by).detail("count", count);
        record_in_own_transaction(&self.db, tenant, &actor, event).await
    }

    async fn flush_refusals(&self) -> Result<()> {
        let by_subject = std::mem::take(&mut *lock(&self.by_subject));
        let mut result = Ok(());
        for (key, RefusalCounts { counted, actor, .. }) in by_subject {
            // Without an actor, all refusals were recorded as single events.
            let Some(actor) = actor else { continue };
            let (tenant, subject) = key;
            let event =
                Event::new(EventKind::RefusalsCounted).target(subject.0).detail("count", counted);
            if result.is_ok() {
                result = bounded(record_in_own_transaction(&self.db, tenant, &actor, event)).await;
            }
            if result.is_err() {
                let mut by_subject = lock(&self.by_subject);
                let newer_counts = by_subject.entry(key).or_default();
                newer_counts.counted += counted;
                newer_counts.actor.get_or_insert(actor);
            }
        }
        result
    }

    /// Counts a refusal. Returns whether the refusal must be recorded as a single event.
    fn count_refusal(&self, refusal: &Refusal) -> bool {
        let mut by_subject = lock(&self.by_subject);
        let counts = by_subject.entry((refusal.tenant, refusal.subject)).or_default();
        if counts.single < MAX_SINGLE_EVENTS {
            counts.single += 1;
            return true;
        }
        counts.counted += 1;
        counts.actor = Some(refusal.actor.clone());
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
