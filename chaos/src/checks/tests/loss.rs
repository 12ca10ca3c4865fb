//! Failovers that lose writes.

use super::{
    ROLE, answer, assigned_and_unassigned, check, ms, op, recorded, trail, unknown, write,
};
use crate::{
    checks::Violation,
    history::{EventWhen, Fault, Freshness, Op, OpId, Outcome},
};

/// A partition of the leader from 2 to 30 seconds, with a recovery of one second.
fn isolation() -> Fault {
    Fault {
        nemesis: "isolate-leader",
        target: String::new(),
        start: ms(2000),
        end: ms(30_000),
        recovery: Some(ms(1000)),
    }
}

/// A role that is assigned while the leader is isolated. The trail lacks the event of the write.
fn lost_write() -> Op {
    recorded(write(3, 4000, 4010, ROLE, true), EventWhen::Always)
}

fn with_token(id: OpId, start: u64, token: OpId) -> Op {
    Op { token: Some(token), ..op(id, start, start + 1) }
}

fn broken_invariants(ops: &[Op], faults: &[Fault], may_lose: bool) -> Vec<&'static str> {
    let violations: Vec<Violation> = check(ops, faults, &trail(&[]), may_lose, None).violations;
    violations.iter().map(|violation| violation.invariant).collect()
}

#[test]
fn only_asynchronous_replication_may_lose_an_acknowledged_write() {
    let mut ops = assigned_and_unassigned();
    ops.push(lost_write());
    let missing = ["every acknowledged write has its audit event"];
    assert_eq!(broken_invariants(&ops, &[isolation()], false), missing);
    assert_eq!(broken_invariants(&ops, &[isolation()], true), Vec::<&str>::new());
    // Without a failover, nothing may be lost.
    assert_eq!(broken_invariants(&ops, &[], true), missing);
    // A write after the recovery must not be lost.
    let kept = Op { id: 4, start: ms(40_000), end: ms(40_010), ..lost_write() };
    assert_eq!(broken_invariants(&[kept], &[isolation()], true), missing);
}

#[test]
fn a_lost_write_has_an_effect_until_the_recovery_at_most() {
    let mut ops = assigned_and_unassigned();
    ops.push(lost_write());
    // The old leader shows the write, and the new leader does not.
    ops.push(answer(4, 5000, 5001, true, Freshness::Current));
    ops.push(answer(5, 29_000, 29_001, false, Freshness::Current));
    // The recovery is at 31 s, and the data of an answer may be 1 s old.
    ops.push(answer(6, 31_900, 31_901, true, Freshness::Bounded));
    assert_eq!(broken_invariants(&ops, &[isolation()], true), Vec::<&str>::new());
    ops.push(answer(7, 32_001, 32_002, true, Freshness::Bounded));
    assert_eq!(
        broken_invariants(&ops, &[isolation()], true),
        ["no answer is staler than the bound"]
    );
}

/// With any replication, a write that was not acknowledged may be seen before it is lost: when the
/// old leader ends, it makes commits visible that still wait for a standby.
#[test]
fn an_unknown_write_may_be_seen_before_it_is_lost() {
    let mut ops = assigned_and_unassigned();
    ops.push(unknown(lost_write()));
    ops.push(answer(4, 5000, 5001, true, Freshness::Current));
    assert_eq!(broken_invariants(&ops, &[isolation()], false), Vec::<&str>::new());
    ops.push(answer(5, 40_000, 40_001, true, Freshness::Current));
    assert_eq!(
        broken_invariants(&ops, &[isolation()], false),
        ["no fully consistent answer is stale"]
    );
}

#[test]
fn a_token_of_lost_data_is_refused() {
    let ops = [lost_write(), with_token(4, 5000, 3), with_token(5, 40_000, 3)];
    // Before the recovery, the old leader may accept the token.
    assert_eq!(broken_invariants(&ops[..2], &[isolation()], true), Vec::<&str>::new());
    assert_eq!(
        broken_invariants(&ops, &[isolation()], true),
        ["a consistency token of lost data is refused"]
    );
}

#[test]
fn only_a_token_near_a_failover_is_refused() {
    let refused = Outcome::Refused {
        code: "FailedPrecondition".to_owned(),
        reason: "TOKEN_OF_LOST_DATA".to_owned(),
    };
    let use_token = Op { outcome: refused, ..with_token(2, 40_000, 1) };
    let ops = [op(1, 29_000, 29_001), use_token];
    assert_eq!(broken_invariants(&ops, &[isolation()], false), Vec::<&str>::new());
    let accepted = ["a consistency token of kept data is accepted"];
    assert_eq!(broken_invariants(&ops, &[], false), accepted);
}
