//! Settings of the time for which ended rows are kept.

use std::{ops::RangeInclusive, time::Duration};

use super::values::{DAY, Reader};

/// The shortest and the longest retention. The shortest covers the differences of clocks.
const ALLOWED: RangeInclusive<Duration> = DAY..=Duration::from_hours(24 * 3660);

/// Time from the end of a row to its deletion.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// For sessions that have expired or were revoked.
    pub sessions: Duration,
    /// For expired role assignments.
    pub assignments: Duration,
    /// For API keys that have expired or were revoked.
    pub api_keys: Duration,
}

impl Retention {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            sessions: read(reader, "SESSION_RETENTION"),
            assignments: read(reader, "ASSIGNMENT_RETENTION"),
            api_keys: read(reader, "API_KEY_RETENTION"),
        }
    }
}

fn read(reader: &mut Reader<'_>, name: &str) -> Duration {
    reader.read(name, |text| match humantime::parse_duration(text) {
        Ok(time) if ALLOWED.contains(&time) => Ok(time),
        _ => Err("must be a time like 30d, at least 1d and at most 3660d".into()),
    })
}
