//! Writes that a failover of Postgres lost.
//!
//! A write that records an audit event is lost if the final trail does not have the event, and a
//! failover was near: it happened during the write or shortly afterwards. Between the commit of the
//! write and the failover, answers may contain the write. So the write may have taken effect, and
//! its effect ends with the recovery from the failover.
//!
//! An acknowledged write may be lost only with asynchronous replication. A write without a response
//! may be lost with any replication: when the old leader ends, it makes commits visible that still
//! wait for a standby.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::audit::{Trails, recorded_kinds};
use crate::history::{Fault, Op, OpId, Time};

/// Faults after which another server can be the leader, or the same server after a restart.
const FAILOVERS: [&str; 5] =
    ["switchover", "kill-leader", "isolate-leader", "cut-etcd", "kill-etcd"];

/// Longest time before a failover in which an asynchronous standby may have received nothing.
const LAG: Duration = Duration::from_secs(5);

/// The writes that failovers lost.
pub struct Losses {
    /// Whether a failover may lose acknowledged writes.
    may_lose: bool,
    /// The time in which each failover may lose writes: from its beginning, less the lag, to its
    /// recovery.
    failovers: Vec<(Time, Time)>,
    /// For each lost write, the time from which no answer contains it any more.
    lost_by: BTreeMap<OpId, Time>,
}

impl Losses {
    /// Finds the lost writes. `may_lose` says whether a failover may lose acknowledged writes.
    pub fn find(ops: &[Op], faults: &[Fault], trails: &Trails, may_lose: bool) -> Self {
        let failovers = faults
            .iter()
            .filter(|fault| FAILOVERS.contains(&fault.nemesis))
            .map(|fault| {
                let recovered = fault.end + fault.recovery.unwrap_or_default();
                (fault.start.saturating_sub(LAG), recovered)
            })
            .collect();
        let mut losses = Self { may_lose, failovers, lost_by: BTreeMap::new() };
        let recorded = recorded_kinds(trails);
        for op in ops {
            let may_be_lost = losses.may_have_lost(op) || !op.is_ok() && !op.is_refused();
            if let Some(lost_by) = losses.last_recovery_near(op)
                && may_be_lost
                && is_unrecorded(op, trails, &recorded)
            {
                losses.lost_by.insert(op.id, lost_by);
            }
        }
        losses
    }

    /// The time from which no answer contains this write any more; `None` if it was not lost.
    pub fn lost_by(&self, op: OpId) -> Option<Time> {
        self.lost_by.get(&op).copied()
    }

    /// Whether a failover may have lost the effect of an acknowledged operation. The operation need
    /// not record an event.
    pub fn may_have_lost(&self, op: &Op) -> bool {
        self.may_lose && op.is_ok() && self.last_recovery_near(op).is_some()
    }

    /// Whether a failover was near this operation. Such a failover may have lost the operation,
    /// also with synchronous replication if the operation was not acknowledged.
    pub fn has_failover_near(&self, op: &Op) -> bool {
        self.last_recovery_near(op).is_some()
    }

    /// The acknowledged writes that are lost.
    pub fn acknowledged<'a>(&self, ops: &'a [Op]) -> impl Iterator<Item = (&'a Op, Time)> {
        ops.iter().filter(|op| op.is_ok()).filter_map(|op| Some((op, self.lost_by(op.id)?)))
    }

    /// The time of the recovery from the last failover that may have lost this operation; `None` if
    /// no failover was near.
    fn last_recovery_near(&self, op: &Op) -> Option<Time> {
        let near = self.failovers.iter().filter(|(from, to)| op.start <= *to && op.end >= *from);
        near.map(|(_, to)| *to).max()
    }
}

/// Whether the operation records an event, and the trail of its tenant does not have it.
fn is_unrecorded(op: &Op, trails: &Trails, recorded: &HashMap<OpId, Vec<&str>>) -> bool {
    let (Some(tenant), Some(event)) = (op.tenant, &op.event) else { return false };
    let kinds = recorded.get(&op.id);
    trails.contains_key(&tenant) && !kinds.is_some_and(|kinds| kinds.contains(&event.kind))
}
