//! Conversion of durations for Postgres.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

use crate::error::{Error, Result};

/// Converts a duration to an `interval`, in whole microseconds, the precision of Postgres.
///
/// # Errors
/// INTERNAL when the duration exceeds about 290,000 years.
pub fn interval(time: Duration) -> Result<PgInterval> {
    let microseconds = i64::try_from(time.as_micros())
        .map_err(|_| Error::defect("a duration is too long for a Postgres interval"))?;
    Ok(PgInterval { months: 0, days: 0, microseconds })
}
