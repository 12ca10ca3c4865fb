//! Generates the reference page of the kinds of audit events.

use std::fmt::Write as _;

use tenantry::EventKind;

use crate::comments::escape_cell;

const INTRODUCTION: &str = "# Audit events

Generated from [`src/audit/kind.rs`](../../src/audit/kind.rs). [audit.md](../audit.md) describes the
audit trail and who may read it. `target` says what `target_id` contains. `detail` is a JSON object
with the listed keys; a key without a value is left out.

| kind | meaning | target | detail |
| --- | --- | --- | --- |
";

pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for kind in EventKind::ALL {
        let detail: Vec<_> =
            kind.detail().iter().map(|(key, value)| format!("`{key}`: {value}")).collect();
        let (about, detail) = (escape_cell(kind.about()), escape_cell(&detail.join("; ")));
        writeln!(page, "| `{}` | {about} | {} | {detail} |", kind.as_str(), kind.target()).ok();
    }
    page
}
