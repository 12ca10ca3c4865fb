//! The only file that reads the time.
//!
//! The service's own clock dates tokens; whatever is compared in SQL is dated
//! by Postgres.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, in UTC.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
#[must_use]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A protobuf timestamp of a point in time.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or(0),
    }
}

/// A point in time as text, by RFC 3339.
#[must_use]
pub fn text(at: OffsetDateTime) -> String {
    // It fails for years beyond 9999, which no timestamp has.
    at.format(&Rfc3339).unwrap_or_default()
}

/// A protobuf timestamp of whole seconds since 1970.
#[must_use]
pub fn timestamp_of(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

/// The point in time of a protobuf timestamp, in whole seconds: what memory counts in,
/// and Postgres must agree with. `None` when it is not in the future.
#[must_use]
pub fn in_the_future(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    from_timestamp(at).and_then(|at| at.replace_nanosecond(0).ok()).filter(|at| *at > now())
}

/// The point in time of a protobuf timestamp; `None` when out of range.
#[must_use]
pub fn from_timestamp(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}
