//! Deletes changes that every reader has had the time to read.
//!
//! Rule: `trim_changes` (`migrations/0021_trim_changes.sql`) decides which changes every reader
//! had time to read, and lets one replica at a time trim.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use tokio::time;

use crate::{error::Result, pg::Postgres};

/// How often.
const INTERVAL: Duration = Duration::from_mins(1);

/// For how long readers have a change, in microseconds: an hour. One that did not
/// read for so long starts anew.
const KEEP: PgInterval = PgInterval { months: 0, days: 0, microseconds: 60 * 60 * 1_000_000 };

/// Changes that one transaction deletes, at most.
const BATCH: i64 = 10_000;

/// Trims until the database's connections are closed.
pub(super) async fn keep_short(postgres: Postgres) {
    while !postgres.is_closed() {
        time::sleep(INTERVAL).await;
        match trim(&postgres).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "the change feed was trimmed"),
            Err(error) => tracing::warn!(%error, "the change feed can't be trimmed"),
        }
    }
}

/// Says how many changes it deleted.
async fn trim(postgres: &Postgres) -> Result<i64> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query_scalar!("select trim_changes($1, $2)", KEEP, BATCH);
        // None where another replica is at it.
        let batch = batch.fetch_one(postgres.pool()).await?.unwrap_or_default();
        deleted += batch;
        if batch < BATCH {
            return Ok(deleted);
        }
    }
}
