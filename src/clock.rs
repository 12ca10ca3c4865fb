//! The only file that reads the time.
//!
//! Tokens are dated by the service's own clock. Times that SQL compares come from Postgres.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The current time in UTC.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
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
pub fn text(at: OffsetDateTime) -> String {
    // It fails only for years beyond 9999, which no timestamp has.
    at.format(&Rfc3339).unwrap_or_default()
}

/// Converts Unix seconds to a protobuf timestamp.
#[must_use]
pub fn timestamp_of(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

/// Converts a protobuf timestamp to a point in time in whole seconds; `None` when it is not in
/// the future. The permission cache counts whole seconds, and Postgres must agree with it.
#[must_use]
pub fn in_the_future(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    from_timestamp(at).and_then(|at| at.replace_nanosecond(0).ok()).filter(|at| *at > now())
}

/// Converts a protobuf timestamp to a point in time; `None` when it is out of range.
#[must_use]
pub fn from_timestamp(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}
