//! No answer is INTERNAL, and the system recovers after each fault.

use super::Violation;
use crate::history::{Fault, Op, Outcome};

pub fn check(ops: &[Op], faults: &[Fault]) -> Vec<Violation> {
    let internal = ops.iter().filter_map(|op| match &op.outcome {
        Outcome::Internal(what) => Some(Violation {
            invariant: "no answer is INTERNAL",
            text: what.clone(),
            operations: vec![op.to_string()],
        }),
        _ => None,
    });
    let stuck = faults.iter().filter(|fault| fault.recovery.is_none()).map(|fault| Violation {
        invariant: "every replica recovers after a fault",
        text: format!("{} ({}) at {:.1?}", fault.nemesis, fault.target, fault.start),
        operations: Vec::new(),
    });
    internal.chain(stuck).collect()
}
