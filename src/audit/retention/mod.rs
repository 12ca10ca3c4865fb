//! The retention of the audit trail: deletes the oldest events of each trail in the order of its
//! chain, and signs the checkpoints that remain. The trim (`crate::trim`) runs a pass every 10
//! minutes.
//!
//! Before events are deleted, the checkpoint before them and their hashes are verified. So nothing
//! is deleted from a trail that was altered, and `tenantry audit verify` can still show the fault.
//! Signatures are made while no transaction is open, because a key service may not answer.

mod metrics;
mod signatures;
mod store;
mod trim;

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::time::{self, Instant};
use uuid::Uuid;

pub use signatures::sign_stale;

use self::{
    metrics::Metrics,
    trim::{Step, step},
};
use crate::{
    concurrency::step::bounded,
    db::Db,
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
    tokens::Keyring,
};

/// Pause before a step is repeated because another replica deletes events.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of tenants that one statement examines.
const TENANT_BATCH: i64 = 1_000;

/// Maximum number of refused trails that one pass logs.
const MAX_LOGGED: u64 = 20;

/// All audit trails, for the worker that deletes their oldest events.
pub struct Trails {
    db: Db,
    keyring: Arc<Keyring>,
    /// Time from an event to its deletion; `None` keeps events for ever.
    retention: Option<Duration>,
    metrics: Metrics,
}

/// The results of one pass.
#[derive(Default)]
struct Pass {
    /// Number of trails from which nothing is deleted, because the trail or its checkpoint is not
    /// valid.
    refused: u64,
    /// Age of the oldest sealed event of all trails before the pass, in seconds.
    oldest_age: f64,
}

impl Trails {
    pub fn new(
        db: &Db,
        keyring: &Arc<Keyring>,
        retention: Option<Duration>,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::register(registry);
        Self { db: db.clone(), keyring: keyring.clone(), retention, metrics }
    }

    /// Makes a pass through all trails: signs the checkpoints again that were not signed with the
    /// current key, and deletes the events whose retention is over. After each transaction that
    /// deletes events, calls `on_deleted` with their number.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres or the key service is unavailable. The next pass deletes the
    /// remaining events.
    pub async fn run_pass(&self, on_deleted: impl Fn(i64)) -> Result<()> {
        let mut pass = Pass::default();
        let keys = Arc::new(self.keyring.statement_keys());
        sign_stale(&self.db, &self.keyring, &keys, |tenant, why| pass.refuse(tenant, why)).await?;
        if let Some(retention) = self.retention {
            self.trim_all(retention, &mut pass, on_deleted).await?;
        }
        if self.metrics.record(pass.oldest_age, pass.refused) {
            tracing::info!("all audit trails can be trimmed again");
        }
        Ok(())
    }

    /// Deletes the events whose retention is over, in all trails.
    async fn trim_all(
        &self,
        retention: Duration,
        pass: &mut Pass,
        on_deleted: impl Fn(i64),
    ) -> Result<()> {
        let (mut after, mut result) = (TenantId(Uuid::nil()), Ok(()));
        loop {
            let started_at = Instant::now();
            let trails = bounded(store::trails(&self.db, retention, after, TENANT_BATCH)).await?;
            let Some(last) = trails.last() else { return result };
            after = last.tenant;
            // Pauses as long as the read took, so that calls get at least half of the time of
            // Postgres.
            time::sleep(started_at.elapsed()).await;
            for trail in trails {
                pass.oldest_age = pass.oldest_age.max(trail.age.unwrap_or_default());
                if !trail.is_due {
                    continue;
                }
                match self.trim(trail.tenant, retention, pass, &on_deleted).await {
                    // The calls of this tenant use all connections that the tenant may use. The
                    // pass continues with the other trails, and returns the error at the end.
                    Err(error) if error.reason() == ErrorReason::Overloaded => result = Err(error),
                    other_result => other_result?,
                }
            }
        }
    }

    /// Deletes the events of one trail whose retention is over. After each step, pauses as long as
    /// the step took, so that calls get at least half of the time of Postgres.
    async fn trim(
        &self,
        tenant: TenantId,
        retention: Duration,
        pass: &mut Pass,
        on_deleted: impl Fn(i64),
    ) -> Result<()> {
        loop {
            let started_at = Instant::now();
            let step = step(&self.db, &self.keyring, tenant, retention).await;
            match step.or_else(refuse_trail_on_internal_error)? {
                Step::Deleted { events, is_last } => {
                    on_deleted(events);
                    if is_last {
                        return Ok(());
                    }
                }
                Step::NothingDue => return Ok(()),
                Step::Retry => time::sleep(LOCK_PAUSE).await,
                Step::Refused(why) => {
                    pass.refuse(tenant, &why);
                    return Ok(());
                }
            }
            time::sleep(started_at.elapsed()).await;
        }
    }
}

/// Converts INTERNAL, with which Postgres refuses to delete events of a trail, to a refused trail.
/// So the pass continues with the other trails. Other errors end the pass.
fn refuse_trail_on_internal_error(error: Error) -> Result<Step> {
    match error.reason() {
        ErrorReason::Internal => Ok(Step::Refused(error.to_string())),
        _ => Err(error),
    }
}

impl Pass {
    /// Counts a trail from which nothing is deleted. Logs at most [`MAX_LOGGED`] such trails.
    fn refuse(&mut self, tenant: TenantId, why: &str) {
        self.refused += 1;
        if self.refused <= MAX_LOGGED {
            tracing::error!(%tenant, why, "an audit trail is not valid, so nothing of it is deleted");
        }
    }
}
