//! Answers are explained by the writes: no acknowledged write is lost, no answer is staler than
//! its consistency allows, and nobody is allowed what was never granted.

use std::{collections::BTreeMap, time::Duration};

use super::{Verdict, Violation};
use crate::{
    history::{Condition, Evidence, Fact, Freshness, Op, OpId},
    model::Model,
};

const LOST_WRITE: &str = "no acknowledged write is lost";
const STALE: &str = "no answer is staler than the bound";
const STALE_TOKEN: &str = "no answer is staler than its consistency token";
const STALE_READ: &str = "no fully consistent answer is stale";
const IMPOSSIBLE: &str = "no answer grants what was never granted";

pub fn check(ops: &[Op], model: &Model, by_id: &BTreeMap<OpId, &Op>) -> Verdict {
    let mut verdict = Verdict {
        violations: Vec::new(),
        longest_staleness: Duration::ZERO,
        stalest_answer: None,
        lost_writes: 0,
        refused_tokens: 0,
    };
    for op in ops {
        for evidence in &op.evidence {
            let fit = model.fit(evidence, op.start, op.end);
            if fit.excess > Duration::ZERO {
                verdict.violations.push(violation(op, evidence, fit.excess, model, by_id));
            } else if fit.age > verdict.longest_staleness {
                verdict.longest_staleness = fit.age;
                verdict.stalest_answer = Some(op.to_string());
            }
        }
    }
    verdict
}

fn violation(
    op: &Op,
    evidence: &Evidence,
    excess: Duration,
    model: &Model,
    by_id: &BTreeMap<OpId, &Op>,
) -> Violation {
    let invariant = if op.is_final {
        LOST_WRITE
    } else if excess == Duration::MAX {
        IMPOSSIBLE
    } else {
        match evidence.freshness {
            Freshness::Bounded => STALE,
            Freshness::SinceToken(_) => STALE_TOKEN,
            Freshness::Current => STALE_READ,
        }
    };
    let mut unexplained = Vec::new();
    collect_unexplained(&evidence.condition, evidence.freshness, op, model, &mut unexplained);
    unexplained.sort_unstable();
    unexplained.dedup();
    let mut writers: Vec<_> =
        unexplained.iter().flat_map(|(fact, _)| model.writers_before(*fact, op.end)).collect();
    writers.sort_unstable();
    writers.dedup();
    let facts: Vec<_> =
        unexplained.iter().map(|(fact, value)| format!("{fact}: {value}")).collect();
    let possibility = if excess == Duration::MAX {
        "was never possible".to_owned()
    } else {
        format!("was possible {excess:.3?} too early")
    };
    let mut operations: Vec<_> =
        writers.iter().filter_map(|id| by_id.get(id)).map(ToString::to_string).collect();
    operations.push(op.to_string());
    let text = format!("the answer needs [{}], which {possibility}", facts.join(", "));
    Violation { invariant, text, operations }
}

/// The facts of a condition that the model does not explain.
fn collect_unexplained(
    condition: &Condition,
    freshness: Freshness,
    op: &Op,
    model: &Model,
    unexplained: &mut Vec<(Fact, bool)>,
) {
    match condition {
        Condition::Is(fact, value) => {
            let evidence = Evidence { condition: condition.clone(), freshness };
            if model.fit(&evidence, op.start, op.end).excess > Duration::ZERO {
                unexplained.push((*fact, *value));
            }
        }
        Condition::All(parts) | Condition::Any(parts) => {
            for part in parts {
                collect_unexplained(part, freshness, op, model, unexplained);
            }
        }
    }
}
