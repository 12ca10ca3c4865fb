//! No answer contains a row of another tenant.

use super::Violation;
use crate::history::Op;

pub fn check(ops: &[Op]) -> Vec<Violation> {
    ops.iter()
        .filter(|op| !op.foreign_rows.is_empty())
        .map(|op| Violation {
            invariant: "no answer has a row of another tenant",
            text: op.foreign_rows.join(", "),
            operations: vec![op.to_string()],
        })
        .collect()
}
