//! A refresh token has at most one successor.

use std::collections::BTreeMap;

use super::{Violation, loss::Losses};
use crate::history::Op;

pub fn check(ops: &[Op], losses: &Losses) -> Vec<Violation> {
    let mut successors: BTreeMap<&str, Vec<(&str, &Op)>> = BTreeMap::new();
    // After a failover that lost a refresh, the token is unused again.
    for op in ops.iter().filter(|op| !losses.may_have_lost(op)) {
        if let Some(refresh) = &op.refresh
            && let Some(successor) = &refresh.successor
        {
            successors.entry(&refresh.presented).or_default().push((successor, op));
        }
    }
    // Whether the uses of one token have more than one new token.
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
