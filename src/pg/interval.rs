//! Conversion of durations for Postgres.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

use crate::error::{Error, Result};

/// Converts a duration to an `interval`.
///
/// # Errors
/// INTERNAL when the duration is not a whole number of microseconds, or exceeds about 290,000
/// years.
pub fn interval(time: Duration) -> Result<PgInterval> {
    PgInterval::try_from(time).map_err(|_| Error::defect("a duration can't be a Postgres interval"))
}
