//! The invariants, checked on the history of a run.

mod answers;
mod audit;
mod loss;
mod refresh;
mod rows;
mod status;
mod tokens;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    history::{Fault, Op, OpId},
    model::Model,
};

pub use self::{
    audit::{TrailEvent, Trails, committed_operations},
    loss::Losses,
};

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
    /// Largest age of the data of an answer that breaks no invariant. The age is the least that the
    /// history proves.
    pub longest_staleness: Duration,
    /// The answer with that data.
    pub stalest_answer: Option<String>,
    /// Number of acknowledged writes that failovers lost, as the replication allows.
    pub lost_writes: usize,
    /// Number of calls that were refused because of a consistency token of lost data.
    pub refused_tokens: usize,
}

/// Checks a history. `may_lose` says whether a failover of Postgres may lose acknowledged writes.
/// [`Model::build`] explains `planted_delay`.
pub fn check(
    ops: &[Op],
    faults: &[Fault],
    trails: &Trails,
    may_lose: bool,
    planted_delay: Option<Duration>,
) -> Verdict {
    let committed = committed_operations(ops, trails);
    let losses = Losses::find(ops, faults, trails, may_lose);
    let model = Model::build(ops, faults, &committed, &losses, planted_delay);
    let by_id: BTreeMap<OpId, &Op> = ops.iter().map(|op| (op.id, op)).collect();
    let mut verdict = answers::check(ops, &model, &by_id);
    verdict.violations.extend(refresh::check(ops, &losses));
    verdict.violations.extend(rows::check(ops));
    verdict.violations.extend(status::check(ops, faults));
    verdict.violations.extend(audit::check(ops, &model, trails, faults, &losses));
    verdict.violations.extend(tokens::check(ops, &by_id, faults, &losses));
    verdict.lost_writes = losses.acknowledged(ops).count();
    verdict.refused_tokens = ops.iter().filter(|op| tokens::is_refused_token(op)).count();
    verdict
}
