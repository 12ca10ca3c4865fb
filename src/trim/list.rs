//! The tables that are trimmed, and how long their ended rows are kept.
//!
//! - Rule: `trim_rows` (`migrations/0030_trim_rows.sql`) decides which rows of a table have ended.

use std::time::Duration;

use crate::{api::idempotency, config::Retention};

/// Retention of rows that nobody can read and no call uses after their end. A day is
/// longer than the differences between the clocks of the machines.
const UNUSED_ROW_RETENTION: Duration = Duration::from_hours(24);

/// One table that is trimmed.
pub(super) struct TrimmedTable {
    /// The name of the table, which is also the label of the metrics.
    pub(super) table: &'static str,
    /// Time from the end of a row to its deletion.
    pub(super) retention: Duration,
    pub(super) method: Method,
}

/// How ended rows are found.
pub(super) enum Method {
    /// `trim_rows` reads the table block by block.
    Blocks,
    /// `trim_requests` finds the expired idempotency records by an index.
    Requests,
}

/// All tables that are trimmed. `trim_rows` decides when a row has ended.
pub(super) fn trims(retention: &Retention) -> Vec<TrimmedTable> {
    let blocks = |table, retention| TrimmedTable { table, retention, method: Method::Blocks };
    vec![
        TrimmedTable {
            table: "idempotency_records",
            retention: idempotency::LIFETIME,
            method: Method::Requests,
        },
        blocks("sessions", retention.sessions),
        blocks("role_assignments", retention.assignments),
        blocks("api_keys", retention.api_keys),
        blocks("spent_assertions", UNUSED_ROW_RETENTION),
        blocks("mail_links", UNUSED_ROW_RETENTION),
        // The mail worker deletes a row when it expires, but a server without mail has no worker.
        blocks("mail_outbox", UNUSED_ROW_RETENTION),
        // A limit counts the rows of waiting registrations (`account/registrations`), so the rows
        // of ended registrations are deleted without delay.
        blocks("registrations", Duration::ZERO),
    ]
}
