//! Deletes the rows of deleted tenants in the background, in batches. One replica at a time deletes
//! a batch; if that replica stops, another replica continues.

mod store;

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::time;

use self::store::DeletedTenant;
use crate::{
    audit,
    concurrency::step::bounded,
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
    redis::Redis,
    sessions,
    telemetry::FailureLog,
};

/// Time between two searches for deleted tenants.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of rows that one transaction deletes from one table.
const BATCH: i64 = 1000;

/// Maximum number of batches of one tenant between two searches. So a large tenant does not delay
/// the other tenants, and the metrics are current.
const BATCHES_PER_TENANT: usize = 20;

/// Maximum number of deleted tenants that one search finds.
const MAX_TENANTS: i64 = 1000;

/// Minimum time from the deletion of a tenant to the removal of its keys in Redis. It is longer
/// than the call that deleted the tenant needs to write its last key.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Time from the deletion of a tenant after which the purge no longer waits until all its audit
/// events were sent to Redis.
const OVERDUE_AGE: Duration = Duration::from_hours(1);

/// Deletes the rows of deleted tenants.
struct Purger {
    db: Db,
    redis: Redis,
    metrics: Metrics,
}

#[derive(Default)]
struct Metrics {
    waiting_tenants: Gauge,
    oldest_age_seconds: Gauge<f64, AtomicU64>,
    deleted_rows: Counter,
}

/// Starts the worker. It stops when the database's connections are closed.
pub fn spawn(db: &Db, redis: &Redis, registry: &mut Registry) {
    let metrics = Metrics::register(registry);
    tokio::spawn(Purger { db: db.clone(), redis: redis.clone(), metrics }.run());
}

impl Purger {
    async fn run(self) {
        let mut log = FailureLog::new(
            "deleted tenants can't be purged; the worker tries again",
            "the purge of deleted tenants works again",
        );
        while !self.db.is_closed() {
            log.record(self.purge_all().await);
            time::sleep(INTERVAL).await;
        }
    }

    /// Purges the deleted tenants. A failure for one tenant does not delay the other tenants.
    /// Returns the last failure.
    async fn purge_all(&self) -> Result<()> {
        let tenants = bounded(store::deleted_tenants(&self.db, MAX_TENANTS)).await?;
        self.metrics.waiting_tenants.set(i64::try_from(tenants.len()).unwrap_or(i64::MAX));
        let oldest = tenants.first().map_or(Duration::ZERO, |tenant| tenant.age);
        self.metrics.oldest_age_seconds.set(oldest.as_secs_f64());
        let mut result = Ok(());
        for tenant in tenants {
            if let Err(error) = self.purge(&tenant).await {
                result = Err(error);
            }
        }
        result
    }

    /// Deletes some batches of a tenant's rows, unless another replica is purging. After each
    /// batch, pauses as long as the batch took, so that calls get at least half of the time of
    /// Postgres.
    async fn purge(&self, tenant: &DeletedTenant) -> Result<()> {
        for _ in 0..BATCHES_PER_TENANT {
            let started_at = Instant::now();
            if !bounded(self.purge_batch(tenant)).await? {
                return Ok(());
            }
            time::sleep(started_at.elapsed()).await;
        }
        Ok(())
    }

    /// Deletes one batch. Returns whether rows may be left that this worker should delete.
    async fn purge_batch(&self, tenant: &DeletedTenant) -> Result<bool> {
        let mut tx = self.db.begin_without_cipher(tenant.id).await?;
        let Some(deleted) = store::delete_rows(&mut tx, BATCH).await? else { return Ok(false) };
        if deleted == 0 {
            self.finish(tx, tenant).await?;
            return Ok(false);
        }
        tx.commit_without_waiting().await?;
        self.metrics.deleted_rows.inc_by(u64::try_from(deleted).unwrap_or_default());
        Ok(true)
    }

    /// Deletes the tenant's keys in Redis and its last row, if nothing will write to the keys any
    /// more. If Redis does not answer, the row stays, and the purge is retried.
    async fn finish(&self, mut tx: TenantTx, tenant: &DeletedTenant) -> Result<()> {
        let is_overdue = tenant.age > OVERDUE_AGE;
        if tenant.age < MIN_AGE || !store::remove(&mut tx, tenant.id, is_overdue).await? {
            return Ok(());
        }
        self.delete_keys(tenant.id).await?;
        tx.commit_without_waiting().await?;
        tracing::info!(tenant = %tenant.id, "a deleted tenant was purged");
        Ok(())
    }

    /// Deletes the tenant's keys in Redis. Session entries expire within a second.
    async fn delete_keys(&self, tenant: TenantId) -> Result<()> {
        use fred::interfaces::KeysInterface;
        let keys = vec![sessions::epoch_key(tenant), audit::stream_key(tenant.0)];
        let reply: Result<i64, _> =
            self.redis.run("UNLINK", self.redis.client().unlink(keys)).await;
        reply.map(drop).map_err(|error| {
            let text = format!("Redis did not delete the keys of a tenant: {error}");
            Error::refused(ErrorReason::StoreUnavailable, text)
        })
    }
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help =
            "Deleted tenants whose rows are not all deleted yet, of all replicas; 1000 at most";
        registry.register("tenantry_purge_tenants_waiting", help, metrics.waiting_tenants.clone());
        let help = "Time since the oldest deletion of a tenant whose rows are not all deleted yet, \
                    in seconds";
        registry.register(
            "tenantry_purge_oldest_seconds",
            help,
            metrics.oldest_age_seconds.clone(),
        );
        let help = "Rows of deleted tenants that this replica deleted";
        registry.register("tenantry_purge_rows", help, metrics.deleted_rows.clone());
        metrics
    }
}
