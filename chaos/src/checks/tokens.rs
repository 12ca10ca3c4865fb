//! Consistency tokens of lost writes are refused, and no others.

use std::{collections::BTreeMap, time::Duration};

use super::{Violation, loss::Losses};
use crate::history::{EventWhen, Fault, Op, OpId, Time};

const REFUSED: &str = "a consistency token of lost data is refused";
const ACCEPTED: &str = "a consistency token of kept data is accepted";

/// A write that begins later than this after the start of a partition is certainly unknown to the
/// standbys. They may know the transaction id of an earlier write, although they lack its commit.
const UNKNOWN_AFTER: Duration = Duration::from_secs(1);

/// Whether the call was refused because its consistency token may be of lost data.
pub fn is_refused_token(op: &Op) -> bool {
    op.is_refused_with("TOKEN_OF_LOST_DATA")
}

pub fn check(
    ops: &[Op],
    by_id: &BTreeMap<OpId, &Op>,
    faults: &[Fault],
    losses: &Losses,
) -> Vec<Violation> {
    let lost: BTreeMap<OpId, Time> = losses
        .acknowledged(ops)
        .filter(|(op, _)| is_unknown_to_standbys(op, faults))
        .map(|(op, lost_by)| (op.id, lost_by))
        .collect();
    let mut violations = Vec::new();
    for op in ops {
        let Some(origin) = op.token.and_then(|id| by_id.get(&id)) else { continue };
        let is_lost = lost.get(&origin.id).is_some_and(|lost_by| op.start > *lost_by);
        let invariant = if op.is_ok() && is_lost {
            REFUSED
        } else if is_refused_token(op) && !losses.has_failover_near(origin) {
            ACCEPTED
        } else {
            continue;
        };
        let text = "the first operation returned the token".to_owned();
        let operations = vec![origin.to_string(), op.to_string()];
        violations.push(Violation { invariant, text, operations });
    }
    violations
}

/// Whether the operation certainly wrote something, and began while the leader was cut off from all
/// standbys.
fn is_unknown_to_standbys(op: &Op, faults: &[Fault]) -> bool {
    // An operation that does not always record an event may have changed nothing.
    let wrote = op.event.as_ref().is_some_and(|event| matches!(event.when, EventWhen::Always));
    wrote
        && faults.iter().any(|fault| {
            fault.nemesis == "isolate-leader"
                && op.start > fault.start + UNKNOWN_AFTER
                && op.end < fault.end
        })
}
