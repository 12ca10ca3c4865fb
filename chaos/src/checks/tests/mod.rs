//! Each check with a history that keeps the invariant and one that breaks it.

mod loss;

use std::time::Duration;

use super::{TrailEvent, Trails, Verdict, check};
use crate::history::{
    Condition, Effect, EventWhen, Evidence, ExpectedEvent, Fact, Fault, Freshness, Op, OpId,
    Outcome, RefreshUse,
};

const ROLE: Fact = Fact::Assigned { user: 1, role: 2 };

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A successful operation without an effect. The times are in milliseconds.
fn op(id: OpId, start: u64, end: u64) -> Op {
    Op {
        id,
        replica: 0,
        method: "Method",
        arguments: String::new(),
        start: ms(start),
        end: ms(end),
        outcome: Outcome::Ok,
        tenant: Some(0),
        effects: Vec::new(),
        evidence: Vec::new(),
        event: None,
        refresh: None,
        token: None,
        foreign_rows: Vec::new(),
        is_final: false,
    }
}

fn write(id: OpId, start: u64, end: u64, fact: Fact, value: bool) -> Op {
    Op { effects: vec![Effect::Set(fact, value)], ..op(id, start, end) }
}

fn unknown(op: Op) -> Op {
    Op { outcome: Outcome::Unknown("no response".to_owned()), ..op }
}

fn answer(id: OpId, start: u64, end: u64, value: bool, freshness: Freshness) -> Op {
    let condition = Condition::Is(ROLE, value);
    Op { evidence: vec![Evidence { condition, freshness }], ..op(id, start, end) }
}

fn verdict(ops: &[Op]) -> Verdict {
    check(ops, &[], &Trails::new(), false, None)
}

/// The invariants that the history breaks.
fn broken_invariants(ops: &[Op]) -> Vec<&'static str> {
    verdict(ops).violations.iter().map(|violation| violation.invariant).collect()
}

/// A role that is assigned from 100 ms and unassigned from 1000 ms on.
fn assigned_and_unassigned() -> Vec<Op> {
    vec![write(1, 90, 100, ROLE, true), write(2, 990, 1000, ROLE, false)]
}

#[test]
fn an_answer_may_be_as_old_as_the_bound() {
    let mut ops = assigned_and_unassigned();
    ops.push(answer(3, 2000, 2010, true, Freshness::Bounded));
    let verdict = verdict(&ops);
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.longest_staleness, ms(1000));
}

#[test]
fn an_older_answer_breaks_the_bound() {
    let mut ops = assigned_and_unassigned();
    ops.push(answer(3, 2001, 2010, true, Freshness::Bounded));
    assert_eq!(broken_invariants(&ops), ["no answer is staler than the bound"]);
}

#[test]
fn a_denial_can_be_stale_too() {
    let mut ops = assigned_and_unassigned();
    ops.truncate(1);
    ops.push(answer(3, 1100, 1110, false, Freshness::Bounded));
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
    ops.push(answer(4, 1101, 1110, false, Freshness::Bounded));
    assert_eq!(broken_invariants(&ops), ["no answer is staler than the bound"]);
}

#[test]
fn an_answer_may_be_decided_before_or_after_an_overlapping_write() {
    let mut ops = assigned_and_unassigned();
    ops.push(answer(3, 995, 996, true, Freshness::Current));
    ops.push(answer(4, 995, 996, false, Freshness::Current));
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
}

#[test]
fn a_fully_consistent_answer_is_current() {
    let mut ops = assigned_and_unassigned();
    ops.push(answer(3, 1000, 1010, true, Freshness::Current));
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
    ops.push(answer(4, 1001, 1010, true, Freshness::Current));
    assert_eq!(broken_invariants(&ops), ["no fully consistent answer is stale"]);
}

#[test]
fn an_answer_includes_the_write_of_its_token() {
    let mut ops = assigned_and_unassigned();
    ops.push(answer(3, 1001, 1010, false, Freshness::SinceToken(2)));
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
    ops.push(answer(4, 1001, 1010, true, Freshness::SinceToken(2)));
    assert_eq!(broken_invariants(&ops), ["no answer is staler than its consistency token"]);
}

#[test]
fn a_token_also_covers_what_was_acknowledged_before_its_write() {
    let mut ops = assigned_and_unassigned();
    ops.push(write(3, 1001, 1005, Fact::UserEnabled(1), true));
    ops.push(answer(4, 1006, 1010, true, Freshness::SinceToken(3)));
    assert_eq!(broken_invariants(&ops), ["no answer is staler than its consistency token"]);
}

#[test]
fn a_write_with_an_unknown_outcome_explains_both_values() {
    let mut ops = assigned_and_unassigned();
    ops.push(unknown(write(3, 1100, 1200, ROLE, true)));
    ops.push(answer(4, 5000, 5001, true, Freshness::Current));
    ops.push(answer(5, 5000, 5001, false, Freshness::Current));
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
}

#[test]
fn a_later_write_ends_the_effect_of_an_unknown_one() {
    let mut ops = assigned_and_unassigned();
    ops.push(unknown(write(3, 1100, 1200, ROLE, true)));
    // This write begins later than the unknown write can take effect (1200 ms and 5 s).
    ops.push(write(4, 6300, 6310, ROLE, false));
    ops.push(answer(5, 6311, 6312, true, Freshness::Current));
    assert_eq!(broken_invariants(&ops), ["no fully consistent answer is stale"]);
    // A fault prolongs the effect: the call may have been held until the end of the fault.
    let (start, end) = (ms(1000), ms(4000));
    let fault = Fault {
        nemesis: "hold-postgres",
        target: String::new(),
        start,
        end,
        recovery: Some(ms(1)),
    };
    assert_eq!(check(&ops, &[fault], &Trails::new(), false, None).violations, []);
}

#[test]
fn a_refused_write_explains_nothing() {
    let refused = Outcome::Refused { code: "NotFound".to_owned(), reason: "NOT_FOUND".to_owned() };
    let ops = [
        Op { outcome: refused, ..write(1, 90, 100, ROLE, true) },
        answer(2, 200, 210, true, Freshness::Bounded),
    ];
    assert_eq!(broken_invariants(&ops), ["no answer grants what was never granted"]);
}

#[test]
fn a_lost_write_is_found_in_the_final_state() {
    let mut ops = assigned_and_unassigned();
    ops.push(Op { is_final: true, ..answer(3, 9000, 9010, false, Freshness::Current) });
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
    ops.push(Op { is_final: true, ..answer(4, 9000, 9010, true, Freshness::Current) });
    assert_eq!(broken_invariants(&ops), ["no acknowledged write is lost"]);
}

fn refresh(id: OpId, start: u64, presented: &str, successor: Option<&str>) -> Op {
    let outcome = match successor {
        Some(_) => Outcome::Ok,
        None => Outcome::Refused {
            code: "Unauthenticated".to_owned(),
            reason: "TOKEN_INVALID".to_owned(),
        },
    };
    let refresh = RefreshUse {
        session: 7,
        presented: presented.to_owned(),
        request_id: id.to_string(),
        successor: successor.map(str::to_owned),
    };
    Op { refresh: Some(refresh), outcome, ..op(id, start, start + 10) }
}

#[test]
fn a_refresh_token_has_one_successor() {
    let same_successor = [refresh(1, 100, "a", Some("b")), refresh(2, 200, "a", Some("b"))];
    assert_eq!(broken_invariants(&same_successor), Vec::<&str>::new());
    let forked = [refresh(1, 100, "a", Some("b")), refresh(2, 200, "a", Some("c"))];
    assert_eq!(broken_invariants(&forked), ["a refresh token has at most one successor"]);
}

#[test]
fn a_second_use_of_a_refresh_token_ends_the_session() {
    let live = |value| Evidence {
        condition: Condition::Is(Fact::SessionLive(7), value),
        freshness: Freshness::Current,
    };
    let mut ops = vec![
        write(1, 0, 5, Fact::TenantActive(0), true),
        write(2, 10, 20, Fact::SessionLive(7), true),
        refresh(3, 100, "a", Some("b")),
        refresh(4, 200, "a", None),
        Op { evidence: vec![live(false)], ..op(5, 300, 310) },
    ];
    assert_eq!(broken_invariants(&ops), Vec::<&str>::new());
    ops[4].evidence = vec![live(true)];
    assert_eq!(broken_invariants(&ops), ["no fully consistent answer is stale"]);
}

#[test]
fn a_row_of_another_tenant_is_reported() {
    let row = vec!["row 1 of tenant 2".to_owned()];
    let ops = [op(1, 100, 110), Op { foreign_rows: row, ..op(2, 100, 110) }];
    assert_eq!(broken_invariants(&ops[..1]), Vec::<&str>::new());
    assert_eq!(broken_invariants(&ops), ["no answer has a row of another tenant"]);
}

#[test]
fn an_internal_error_is_reported() {
    let internal = Outcome::Internal("Internal INTERNAL".to_owned());
    let ops = [unknown(op(1, 100, 110)), Op { outcome: internal, ..op(2, 100, 110) }];
    assert_eq!(broken_invariants(&ops[..1]), Vec::<&str>::new());
    assert_eq!(broken_invariants(&ops), ["no answer is INTERNAL"]);
}

fn recorded(op: Op, when: EventWhen) -> Op {
    Op { event: Some(ExpectedEvent { kind: "role_assigned", when }), ..op }
}

fn trail(operations: &[OpId]) -> Trails {
    let events = operations.iter().zip(1..).map(|(op, position)| TrailEvent {
        position,
        kind: "role_assigned".to_owned(),
        op: Some(*op),
    });
    Trails::from([(0, events.collect())])
}

fn broken_invariants_with_trail(ops: &[Op], trail: &Trails) -> Vec<&'static str> {
    let verdict = check(ops, &[], trail, false, None);
    verdict.violations.iter().map(|violation| violation.invariant).collect()
}

#[test]
fn every_acknowledged_write_has_its_event() {
    let ops = [recorded(write(1, 90, 100, ROLE, true), EventWhen::Always)];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[1])), Vec::<&str>::new());
    let missing = ["every acknowledged write has its audit event"];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[])), missing);
    // The second write changes nothing, so it records nothing.
    let when = EventWhen::Changed(ROLE, true);
    let ops =
        [write(1, 90, 100, ROLE, true), recorded(write(2, 190, 200, ROLE, true), when.clone())];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[])), Vec::<&str>::new());
    let ops = [write(1, 90, 100, ROLE, false), recorded(write(2, 190, 200, ROLE, true), when)];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[])), missing);
}

#[test]
fn events_have_the_order_of_the_writes() {
    let ops =
        [recorded(op(1, 90, 100), EventWhen::Always), recorded(op(2, 190, 200), EventWhen::Always)];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[1, 2])), Vec::<&str>::new());
    let inverted = ["audit events have the order of the writes"];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[2, 1])), inverted);
    let wrong_clock = Fault {
        nemesis: "wrong-clock",
        target: String::new(),
        start: ms(50),
        end: ms(150),
        recovery: Some(ms(1)),
    };
    assert_eq!(check(&ops, &[wrong_clock], &trail(&[2, 1]), false, None).violations, []);
}

#[test]
fn a_trail_without_a_position_is_reported() {
    let mut trails = trail(&[1, 2]);
    if let Some(events) = trails.get_mut(&0) {
        events.remove(0);
    }
    assert_eq!(broken_invariants_with_trail(&[], &trails), ["an audit trail has no gaps"]);
}

/// The trail decides about a write whose outcome the client does not know.
#[test]
fn the_trail_tells_whether_an_unknown_write_took_effect() {
    let unknown_write = unknown(recorded(write(1, 90, 100, ROLE, true), EventWhen::Always));
    let ops = [unknown_write, answer(2, 200, 210, true, Freshness::Bounded)];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[1])), Vec::<&str>::new());
    let impossible = ["no answer grants what was never granted"];
    assert_eq!(broken_invariants_with_trail(&ops, &trail(&[])), impossible);
}

#[test]
fn a_system_that_does_not_recover_is_reported() {
    let fault = |recovery| Fault {
        nemesis: "kill-replica",
        target: String::new(),
        start: ms(1),
        end: ms(2),
        recovery,
    };
    assert_eq!(check(&[], &[fault(Some(ms(1)))], &Trails::new(), false, None).violations, []);
    assert_eq!(check(&[], &[fault(None)], &Trails::new(), false, None).violations.len(), 1);
}

/// The planted fault: with a model that moves a revocation into the past, the checks find a
/// violation. The answer is given at 4000 ms. A delay of 1900 ms moves the revocation to 3110 ms,
/// which the bound of 1 s allows, and a delay of 3000 ms moves it to 2010 ms.
#[test]
fn a_planted_delay_is_found() {
    let ops = [
        write(1, 90, 100, ROLE, true),
        answer(2, 4000, 4010, true, Freshness::Bounded),
        write(3, 5000, 5010, ROLE, false),
    ];
    assert_eq!(verdict(&ops).violations, []);
    assert_eq!(check(&ops, &[], &Trails::new(), false, Some(ms(1900))).violations, []);
    assert_eq!(check(&ops, &[], &Trails::new(), false, Some(ms(3000))).violations.len(), 1);
}
