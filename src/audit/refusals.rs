//! What is refused to a subject that is known: recorded before its caller hears of
//! it, but for floods: of those the rest of a minute is one event.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Actor, Event, EventKind, record_alone};
use crate::{
    db::Db,
    error::Result,
    ids::{TenantId, UserId},
};

/// A subject's refusals in one tenant and minute that are recorded one by one, at most.
const SINGLY: u64 = 20;

/// Records refusals.
pub struct Refusals {
    db: Db,
    /// Since the last flush.
    seen: Mutex<HashMap<(TenantId, UserId), Seen>>,
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
        Arc::new(Self { db, seen: Mutex::default() })
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

    /// Records the refusals that were just counted.
    ///
    /// # Errors
    /// When Postgres is away; what is not recorded then is counted on.
    pub async fn flush(&self) -> Result<()> {
        let seen = std::mem::take(&mut *self.seen());
        let mut outcome = Ok(());
        for (of, Seen { counted, actor, .. }) in seen {
            let Some(actor) = actor else { continue };
            let (tenant, subject) = of;
            let event =
                Event::new(EventKind::RefusalsCounted).target(subject.0).detail("count", counted);
            if let Err(error) = record_alone(&self.db, tenant, &actor, event).await {
                outcome = Err(error);
                let mut seen = self.seen();
                let since = seen.entry(of).or_default();
                since.counted += counted;
                since.actor.get_or_insert(actor);
            }
        }
        outcome
    }

    fn is_single(&self, refusal: &Refusal) -> bool {
        let mut seen = self.seen();
        let of_subject = seen.entry((refusal.tenant, refusal.subject)).or_default();
        if of_subject.singly < SINGLY {
            of_subject.singly += 1;
            return true;
        }
        of_subject.counted += 1;
        of_subject.actor = Some(refusal.actor.clone());
        false
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<(TenantId, UserId), Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
