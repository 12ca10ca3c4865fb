//! Deletes records that have ended.
//!
//! Rule: `trim_requests` (`migrations/0025_trim_requests.sql`) decides which records have
//! ended, and lets one replica at a time trim.

use std::time::Duration;

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::time;

use super::LIFE;
use crate::{db::Db, error::Result};

/// How often.
const INTERVAL: Duration = Duration::from_mins(1);

/// Records that one transaction deletes, at most.
const BATCH: i64 = 1000;

/// Trims in a task of its own, on one replica at a time, until the database's connections
/// are closed.
pub fn keep_short(db: &Db, registry: &mut Registry) {
    let trimmed = Counter::default();
    let help = "Ended records of requests with a request_id that this replica deleted";
    registry.register("tenantry_requests_trimmed", help, trimmed.clone());
    tokio::spawn(run(db.clone(), trimmed));
}

async fn run(db: Db, trimmed: Counter) {
    while !db.is_closed() {
        match trim(&db, &trimmed).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "ended records of requests were deleted"),
            Err(error) => tracing::warn!(%error, "ended records of requests can't be deleted"),
        }
        time::sleep(INTERVAL).await;
    }
}

/// Says how many records it deleted.
async fn trim(db: &Db, trimmed: &Counter) -> Result<i64> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query_scalar!("select trim_requests($1, $2)", LIFE, BATCH);
        // None where another replica is at it.
        let batch = batch.fetch_one(db.pool()).await?.unwrap_or_default();
        trimmed.inc_by(u64::try_from(batch).unwrap_or_default());
        deleted += batch;
        if batch < BATCH {
            return Ok(deleted);
        }
    }
}
