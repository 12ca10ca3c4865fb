//! Deletes expired idempotency records.
//!
//! Rule: `trim_requests` (`migrations/0025_trim_requests.sql`) decides which records have
//! expired, and lets only one replica at a time delete records.

use std::time::Duration;

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::time;

use super::store;
use crate::{concurrency::step::bounded, db::Db, error::Result};

/// Time between two runs.
const INTERVAL: Duration = Duration::from_mins(1);

/// Maximum number of records that one transaction deletes.
const BATCH: i64 = 1000;

/// Starts a background task that deletes expired records until the database's connections are
/// closed. Only one replica at a time deletes records.
pub fn spawn_trimming(db: &Db, registry: &mut Registry) {
    let deleted_total = Counter::default();
    let help = "Expired idempotency records (requests with a request_id) that this replica deleted";
    registry.register("tenantry_requests_trimmed", help, deleted_total.clone());
    tokio::spawn(run(db.clone(), deleted_total));
}

async fn run(db: Db, deleted_total: Counter) {
    while !db.is_closed() {
        match trim(&db, &deleted_total).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "expired idempotency records were deleted"),
            Err(error) => tracing::warn!(%error, "can't delete expired idempotency records"),
        }
        time::sleep(INTERVAL).await;
    }
}

/// Deletes all expired records. Returns their number.
async fn trim(db: &Db, deleted_total: &Counter) -> Result<i64> {
    let mut deleted = 0;
    loop {
        let batch = bounded(store::delete_expired(db, BATCH)).await?;
        deleted_total.inc_by(u64::try_from(batch).unwrap_or_default());
        deleted += batch;
        if batch < BATCH {
            return Ok(deleted);
        }
    }
}
