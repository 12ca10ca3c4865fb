//! Deletes changes that every replica has had enough time to read.
//!
//! Rule: `trim_changes` (`migrations/0021_trim_changes.sql`) decides which changes these are.
//! Only one replica at a time deletes changes.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::postgres::types::PgInterval;
use tokio::time;

use crate::{concurrency::step::bounded, error::Result, pg::Postgres, telemetry::FailureLog};

/// Time between two runs.
const INTERVAL: Duration = Duration::from_mins(1);

/// Retention of changes: one hour. A replica that has not read the feed for a longer time resets
/// its caches.
const RETENTION: PgInterval = PgInterval { months: 0, days: 0, microseconds: 60 * 60 * 1_000_000 };

/// Maximum number of changes that one transaction deletes.
const BATCH: i64 = 10_000;

/// Trims the feed until the pool is closed.
pub(super) async fn trim_until_closed(postgres: Postgres, trimmed: Counter) {
    let mut log = FailureLog::new(
        "the change feed can't be trimmed; the worker tries again",
        "the trim of the change feed works again",
    );
    while !postgres.is_closed() {
        time::sleep(INTERVAL).await;
        log.record(trim(&postgres, &trimmed).await);
    }
}

/// Deletes old changes in batches, and counts them.
async fn trim(postgres: &Postgres, trimmed: &Counter) -> Result<()> {
    loop {
        let deleted_count = bounded(trim_batch(postgres)).await?;
        trimmed.inc_by(u64::try_from(deleted_count).unwrap_or_default());
        if deleted_count < BATCH {
            return Ok(());
        }
    }
}

/// Deletes one batch of old changes. Returns the number of deleted changes: 0 while another replica
/// is trimming.
async fn trim_batch(postgres: &Postgres) -> Result<i64> {
    let query = sqlx::query_scalar!("select trim_changes($1, $2)", RETENTION, BATCH);
    Ok(query.fetch_one(postgres.executor()).await?.unwrap_or_default())
}
