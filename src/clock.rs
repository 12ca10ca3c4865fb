//! The only file that reads the system clock, and conversions of points in time.
//!
//! The times in tokens come from this clock. SQL compares times with the clock of Postgres
//! (`now()` or `clock_timestamp()`).

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The current time in UTC.
#[expect(clippy::disallowed_methods, reason = "no other code may read the system clock")]
#[must_use]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Converts a point in time to a protobuf timestamp.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or(0),
    }
}

/// Converts a point in time to text (RFC 3339).
#[must_use]
pub fn rfc3339(at: OffsetDateTime) -> String {
    // Formatting fails only for years after 9999, which no timestamp has.
    at.format(&Rfc3339).unwrap_or_default()
}

/// Converts Unix seconds to a protobuf timestamp.
#[must_use]
pub fn timestamp_from_seconds(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

/// Converts a protobuf timestamp to a point in time, without the fraction of a second; `None` when
/// the result is not in the future. The permission cache compares whole seconds, and Postgres
/// compares fractions. So without the fraction, both decide the same.
#[must_use]
pub fn future_time_from_timestamp(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    from_timestamp(at).and_then(|at| at.replace_nanosecond(0).ok()).filter(|at| *at > now())
}

/// Converts a protobuf timestamp to a point in time; `None` when it is out of range.
#[must_use]
pub fn from_timestamp(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}
