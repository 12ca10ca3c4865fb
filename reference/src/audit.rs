//! The page of the audit trail's kinds.

use std::fmt::Write as _;

use tenantry::EventKind;

use crate::comments::cell;

const INTRODUCTION: &str = "# Audit events

Made from [`src/audit/kind.rs`](../../src/audit/kind.rs). What the trail is, and who reads it, is in
[audit.md](../audit.md). `target` is what `target_id` holds. `detail` is a JSON object with the keys
that are listed; a key that has nothing to say is left out.

| kind | meaning | target | detail |
| --- | --- | --- | --- |
";

pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for kind in EventKind::ALL {
        let detail: Vec<_> =
            kind.detail().iter().map(|(key, value)| format!("`{key}`: {value}")).collect();
        let (about, detail) = (cell(kind.about()), cell(&detail.join("; ")));
        writeln!(page, "| `{}` | {about} | {} | {detail} |", kind.as_str(), kind.target()).ok();
    }
    page
}
