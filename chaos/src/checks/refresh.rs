//! A refresh token has at most one successor.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::Op;

pub fn check(ops: &[Op]) -> Vec<Violation> {
    let mut successors: BTreeMap<&str, Vec<(&str, &Op)>> = BTreeMap::new();
    for op in ops {
        if let Some(refresh) = &op.refresh
            && let Some(successor) = &refresh.successor
        {
            successors.entry(&refresh.presented).or_default().push((successor, op));
        }
    }
    let is_forked = |uses: &&Vec<(&str, &Op)>| uses.iter().any(|(token, _)| *token != uses[0].0);
    successors
        .values()
        .filter(is_forked)
        .map(|uses| Violation {
            invariant: "a refresh token has at most one successor",
            text: format!("a token has {} successors", uses.len()),
            operations: uses.iter().map(|(_, op)| op.to_string()).collect(),
        })
        .collect()
}
