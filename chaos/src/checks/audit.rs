//! The audit trail has the event of every acknowledged write, in the order of the writes.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Violation, loss::Losses};
use crate::{
    history::{EventWhen, Fault, Op, OpId, Time},
    model::Model,
};

/// Events that are recorded within this time may get their positions together, in the order of the
/// replicas' clocks.
const BATCH_TIME: Duration = Duration::from_secs(1);

const COMPLETE: &str = "every acknowledged write has its audit event";
const ORDERED: &str = "audit events have the order of the writes";
const GAPLESS: &str = "an audit trail has no gaps";

/// An event of a trail.
#[derive(Clone, Debug)]
pub struct TrailEvent {
    pub position: i64,
    pub kind: String,
    /// The operation whose call recorded the event; `None` if the call was not of the workload.
    pub op: Option<OpId>,
}

/// The events of each tenant, ordered by position.
pub type Trails = BTreeMap<usize, Vec<TrailEvent>>;

/// For each operation that was not acknowledged and records an event when it changes something:
/// whether the trail has this event. Operations of a tenant without a trail are left out.
pub fn committed_operations(ops: &[Op], trails: &Trails) -> BTreeMap<OpId, bool> {
    let recorded = recorded_kinds(trails);
    ops.iter()
        .filter(|op| !op.is_ok())
        .filter_map(|op| {
            let (tenant, event) = (op.tenant?, op.event.as_ref()?);
            trails.get(&tenant)?;
            let kinds = recorded.get(&op.id);
            let is_recorded = kinds.is_some_and(|kinds| kinds.contains(&event.kind));
            Some((op.id, is_recorded))
        })
        .collect()
}

/// The kinds of the events of each operation.
pub fn recorded_kinds(trails: &Trails) -> HashMap<OpId, Vec<&str>> {
    let mut kinds: HashMap<OpId, Vec<&str>> = HashMap::new();
    for event in trails.values().flatten() {
        if let Some(op) = event.op {
            kinds.entry(op).or_default().push(&event.kind);
        }
    }
    kinds
}

pub fn check(
    ops: &[Op],
    model: &Model,
    trails: &Trails,
    faults: &[Fault],
    losses: &Losses,
) -> Vec<Violation> {
    let mut violations = missing_events(ops, model, trails, losses);
    let by_id: HashMap<OpId, &Op> = ops.iter().map(|op| (op.id, op)).collect();
    for (tenant, trail) in trails {
        violations.extend(gap(*tenant, trail));
        violations.extend(inversions(trail, &by_id, faults));
    }
    violations
}

fn missing_events(ops: &[Op], model: &Model, trails: &Trails, losses: &Losses) -> Vec<Violation> {
    let recorded = recorded_kinds(trails);
    let is_missing = |op: &&Op| {
        let (Some(tenant), Some(event)) = (op.tenant, &op.event) else { return false };
        let kinds = recorded.get(&op.id);
        let is_recorded = kinds.is_some_and(|kinds| kinds.contains(&event.kind));
        op.is_ok()
            && trails.contains_key(&tenant)
            && !is_recorded
            && losses.lost_by(op.id).is_none()
            && must_record(op, model)
    };
    ops.iter()
        .filter(is_missing)
        .map(|op| Violation {
            invariant: COMPLETE,
            text: format!("no event {}", op.event.as_ref().map_or("", |event| event.kind)),
            operations: vec![op.to_string()],
        })
        .collect()
}

/// Whether the operation certainly changed something.
fn must_record(op: &Op, model: &Model) -> bool {
    match op.event.as_ref().map(|event| &event.when) {
        Some(EventWhen::Always) => true,
        Some(EventWhen::Changed(fact, value)) => !model.may_have_been(*fact, *value, op),
        Some(EventWhen::Perhaps) | None => false,
    }
}

/// The first position that the trail lacks.
fn gap(tenant: usize, trail: &[TrailEvent]) -> Option<Violation> {
    let (event, expected) = trail.iter().zip(1..).find(|(event, n)| event.position != *n)?;
    Some(Violation {
        invariant: GAPLESS,
        text: format!("tenant {tenant}: position {} instead of {expected}", event.position),
        operations: Vec::new(),
    })
}

/// Pairs of acknowledged writes of which the later one has the earlier event.
fn inversions(
    trail: &[TrailEvent],
    by_id: &HashMap<OpId, &Op>,
    faults: &[Fault],
) -> Vec<Violation> {
    let mut violations = Vec::new();
    // The write with the latest start among the events so far.
    let mut latest: Option<(Time, &Op)> = None;
    let acknowledged = trail.iter().filter_map(|event| by_id.get(&event.op?));
    for op in acknowledged.filter(|op| op.is_ok()) {
        if let Some((start, later)) = latest
            && op.end < start
            && !is_explained_by_clocks(op, later, faults)
        {
            let gap = start.saturating_sub(op.end);
            violations.push(Violation {
                invariant: ORDERED,
                text: format!("the second write began {gap:.3?} later and has the earlier event"),
                operations: vec![op.to_string(), later.to_string()],
            });
        }
        if latest.is_none_or(|(start, _)| op.start > start) {
            latest = Some((op.start, op));
        }
    }
    violations
}

/// Whether a wrong clock explains the order of the events. Events that get their positions
/// together are ordered by the clocks of the replicas that recorded them.
fn is_explained_by_clocks(earlier: &Op, later: &Op, faults: &[Fault]) -> bool {
    let mut wrong_clocks = faults.iter().filter(|fault| fault.nemesis == "wrong-clock");
    later.end.saturating_sub(earlier.start) < BATCH_TIME
        && wrong_clocks.any(|fault| fault.start <= later.end && fault.end >= earlier.start)
}
