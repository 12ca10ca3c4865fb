//! Settings of retention: how long expired and revoked rows, and audit events, are kept.

use std::{ops::RangeInclusive, time::Duration};

use super::values::{DAY, Reader};

/// The shortest and the longest retention. The shortest is longer than the difference between the
/// clocks of two machines.
const ALLOWED: RangeInclusive<Duration> = DAY..=Duration::from_hours(24 * 3660);

/// The shortest and the longest retention of audit events. `0043_audit_checkpoints.sql` contains
/// the shortest one too, and the database refuses to delete younger events.
const AUDIT_ALLOWED: RangeInclusive<Duration> =
    Duration::from_hours(24 * 30)..=Duration::from_hours(24 * 3660);

/// Time from the expiry or the revocation of a row to its deletion.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// For sessions that have expired or were revoked.
    pub sessions: Duration,
    /// For expired role assignments.
    pub assignments: Duration,
    /// For API keys that have expired or were revoked.
    pub api_keys: Duration,
    /// For audit events, from their creation; `None` keeps them for ever.
    pub audit: Option<Duration>,
}

impl Retention {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            sessions: read(reader, "SESSION_RETENTION"),
            assignments: read(reader, "ASSIGNMENT_RETENTION"),
            api_keys: read(reader, "API_KEY_RETENTION"),
            audit: reader.read("AUDIT_RETENTION", parse_audit),
        }
    }
}

fn parse_audit(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    match humantime::parse_duration(text) {
        Ok(time) if AUDIT_ALLOWED.contains(&time) => Ok(Some(time)),
        _ => Err("must be forever, or a time like 400d, at least 30d and at most 3660d".into()),
    }
}

fn read(reader: &mut Reader<'_>, name: &str) -> Duration {
    reader.read(name, |text| match humantime::parse_duration(text) {
        Ok(time) if ALLOWED.contains(&time) => Ok(time),
        _ => Err("must be a time like 30d, at least 1d and at most 3660d".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_retention_is_at_least_30_days() {
        assert_eq!(parse_audit("forever"), Ok(None));
        assert_eq!(parse_audit("30d"), Ok(Some(30 * DAY)));
        for text in ["29d", "off", "0", "", "3661d"] {
            assert!(parse_audit(text).is_err_and(|why| why.contains("at least 30d")), "{text}");
        }
    }
}
