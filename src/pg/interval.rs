//! Times as Postgres takes them.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

use crate::error::{Error, Result};

/// A time as an `interval`.
///
/// # Errors
/// INTERNAL for one with a part of a microsecond, or of more than some 290,000 years.
pub fn interval(time: Duration) -> Result<PgInterval> {
    PgInterval::try_from(time).map_err(|_| Error::defect("a time is no interval of Postgres's"))
}
