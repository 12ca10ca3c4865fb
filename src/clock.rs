//! The only file that reads the time.
//!
//! The service's own clock dates tokens; whatever is compared in SQL is dated
//! by Postgres.

use time::OffsetDateTime;

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

/// A protobuf timestamp of whole seconds since 1970.
#[must_use]
pub fn timestamp_of(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

/// The point in time of a protobuf timestamp; `None` when out of range.
#[must_use]
pub fn from_timestamp(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}
