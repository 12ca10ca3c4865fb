//! The invariants, checked on the history of a run.

mod answers;
mod audit;
mod refresh;
mod rows;
mod status;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    history::{Fault, Op, OpId},
    model::Model,
};

pub use self::audit::{TrailEvent, Trails, committed_operations};

/// A broken invariant, with the operations that show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Violation {
    pub invariant: &'static str,
    pub text: String,
    /// The operations, for people.
    pub operations: Vec<String>,
}

/// The result of all checks.
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// Largest age of data in an answer that the bound allows, as far as the history proves it.
    pub longest_staleness: Duration,
    /// The answer with that data.
    pub stalest_answer: Option<String>,
}

/// Checks a history.
pub fn check(
    ops: &[Op],
    faults: &[Fault],
    trails: &Trails,
    planted_delay: Option<Duration>,
) -> Verdict {
    let committed = committed_operations(ops, trails);
    let model = Model::build(ops, faults, &committed, planted_delay);
    let by_id: BTreeMap<OpId, &Op> = ops.iter().map(|op| (op.id, op)).collect();
    let mut verdict = answers::check(ops, &model, &by_id);
    verdict.violations.extend(refresh::check(ops));
    verdict.violations.extend(rows::check(ops));
    verdict.violations.extend(status::check(ops, faults));
    verdict.violations.extend(audit::check(ops, &model, trails, faults));
    verdict
}
