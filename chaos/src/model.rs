//! The model computes, from the writes in the history, when each fact may have had each value.
//!
//! A successful write takes effect at one moment between its start and its end. An unknown write
//! takes effect at one moment between its start and the end of its possible effect, or never.
//!
//! So a write makes its value possible from the start of the write. A later successful write of the
//! opposite value makes the value impossible again when that later write ends. Write B is
//! later than write A if B starts after the end of the possible effect of A. Of several later writes,
//! the write that ends first applies.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use crate::{
    checks::Losses,
    history::{
        Condition, Effect, Evidence, Fact, Fault, Freshness, Op, OpId, Outcome, RefreshUse, Time,
    },
};

/// Bound of docs/consistency.md: a decision includes every change that was acknowledged this long
/// before the call.
pub const BOUND: Duration = Duration::from_secs(1);

/// An unknown call may still take effect for this time after its end. A fault in this time
/// prolongs it: a process or a connection that stood still continues with the call afterwards.
pub const EFFECT_LIMIT: Duration = Duration::from_secs(5);

/// A write of a fact.
#[derive(Clone, Copy, Debug)]
struct Write {
    op: OpId,
    start: Time,
    /// The end of the possible effect.
    end: Time,
    value: bool,
    /// Whether the write certainly took effect.
    is_certain: bool,
    /// The time by which a failover had removed the value; `Time::MAX` if the write was not lost.
    lost_by: Time,
}

/// Times at which a value was possible because of one write.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    op: OpId,
    start: Time,
    end: Time,
}

/// The possible values of all facts.
pub struct Model {
    writes: HashMap<Fact, Vec<Write>>,
    /// For each value of a fact, one span for each write that made the value possible.
    spans: HashMap<(Fact, bool), Vec<Span>>,
    /// The union of the spans, ordered.
    possible: HashMap<(Fact, bool), Vec<(Time, Time)>>,
    /// The operations whose consistency tokens calls may use.
    tokens: HashMap<OpId, TokenOrigin>,
}

/// The operation that returned a consistency token.
struct TokenOrigin {
    start: Time,
    end: Time,
    facts: HashSet<Fact>,
}

/// How well the model explains an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// How much older the data must have been than the freshness allows; zero if the answer is
    /// explained, and [`Duration::MAX`] if no data explains it.
    pub excess: Duration,
    /// Least possible age of the data at the start of the call.
    pub age: Duration,
}

impl Model {
    /// Builds the model. `committed` says for unknown operations whether the audit trail proves
    /// that they took effect. `losses` are the writes that failovers lost. `planted_delay` moves
    /// the writes that remove rights to an earlier time, to prove that the checks find stale answers.
    pub fn build(
        ops: &[Op],
        faults: &[Fault],
        committed: &BTreeMap<OpId, bool>,
        losses: &Losses,
        planted_delay: Option<Duration>,
    ) -> Self {
        let mut writes: HashMap<Fact, Vec<Write>> = HashMap::new();
        let sessions = sessions_by_user(ops);
        for op in ops {
            let lost_by = losses.lost_by(op.id);
            // A lost write does not rule out the opposite value, so it is recorded as not certain.
            let effect = match lost_by {
                Some(_) if op.is_ok() => Some((op.end, false)),
                Some(lost_by) => Some((end_of_effect(op, faults).min(lost_by), false)),
                None => effect_of(op, faults, committed),
            };
            let Some((end, is_certain)) = effect else { continue };
            let lost_by = lost_by.unwrap_or(Time::MAX);
            for (fact, value) in facts_set_by(op, &sessions) {
                let delay = planted_delay.filter(|_| !value && !op.is_final).unwrap_or_default();
                let start = op.start.saturating_sub(delay);
                let end = end.saturating_sub(delay);
                let write = Write { op: op.id, start, end, value, is_certain, lost_by };
                writes.entry(fact).or_default().push(write);
            }
        }
        let tokens = ops
            .iter()
            .filter(|op| op.is_ok() && !op.effects.is_empty() && losses.lost_by(op.id).is_none())
            .map(|op| {
                let facts = facts_set_by(op, &sessions).into_iter().map(|(fact, _)| fact).collect();
                (op.id, TokenOrigin { start: op.start, end: op.end, facts })
            })
            .collect();
        let mut model = Self { writes, spans: HashMap::new(), possible: HashMap::new(), tokens };
        model.find_spans();
        // Whether a second use of a refresh token ends the session depends on other facts.
        for (session, write) in model.reuse_writes(ops, faults, losses, &sessions) {
            model.writes.entry(Fact::SessionLive(session)).or_default().push(write);
        }
        model.find_spans();
        model
    }

    /// The writes that end a session because a refresh token was presented twice, with the numbers
    /// of the sessions.
    fn reuse_writes(
        &self,
        ops: &[Op],
        faults: &[Fault],
        losses: &Losses,
        sessions: &Sessions,
    ) -> Vec<(usize, Write)> {
        let mut by_token: HashMap<&str, Vec<(&Op, &RefreshUse)>> = HashMap::new();
        // For each session with a refresh that a failover may have lost: the start of the first
        // such refresh. After the loss, the server does not know the newest token of the session,
        // so the use of this token may end the session.
        let mut first_lost_refresh: HashMap<usize, Time> = HashMap::new();
        for op in ops {
            if let Some(refresh) = &op.refresh {
                if losses.may_have_lost(op) {
                    first_lost_refresh.entry(refresh.session).or_insert(op.start);
                }
                by_token.entry(&refresh.presented).or_default().push((op, refresh));
            }
        }
        let mut writes = Vec::new();
        for uses in by_token.values() {
            for (op, refresh) in uses.iter().filter(|(op, _)| !op.is_ok()) {
                // The other uses of the token that may have reached the server before this one.
                let other_uses =
                    || uses.iter().filter(|(other, _)| other.id != op.id && other.start < op.end);
                let lost_refresh = first_lost_refresh.get(&refresh.session);
                let may_have_lost_refresh = lost_refresh.is_some_and(|start| *start <= op.end);
                if other_uses().next().is_none() && !may_have_lost_refresh {
                    continue;
                }
                let was_used_before = other_uses().any(|(other, other_use)| {
                    let is_retry = other_use.request_id == refresh.request_id;
                    let is_kept = other.is_ok() && !losses.may_have_lost(other);
                    is_kept && other.end < op.start && !is_retry
                });
                let is_certain = was_used_before
                    && !op.is_unknown()
                    && self.was_owner_active(op, refresh.session, sessions);
                let end = if op.is_unknown() { end_of_effect(op, faults) } else { op.end };
                let write = Write {
                    op: op.id,
                    start: op.start,
                    end,
                    value: false,
                    is_certain,
                    lost_by: Time::MAX,
                };
                writes.push((refresh.session, write));
            }
        }
        writes
    }

    /// Whether the tenant and the user of a session were certainly active while `op` ran. Otherwise
    /// the server may have refused the refresh before it checked the token, and then the session
    /// did not end.
    fn was_owner_active(&self, op: &Op, session: usize, sessions: &Sessions) -> bool {
        let user = sessions.iter().find_map(|(user, opened)| {
            opened.iter().any(|(number, _)| *number == session).then_some(*user)
        });
        let facts = [op.tenant.map(Fact::TenantActive), user.map(Fact::UserEnabled)];
        // A fact was certainly true if `false` was not possible during the call.
        facts
            .into_iter()
            .flatten()
            .all(|fact| self.age(fact, false, op.start, op.end) > Duration::ZERO)
    }

    fn find_spans(&mut self) {
        for (fact, writes) in &self.writes {
            for value in [false, true] {
                let spans = spans_of(writes, value);
                self.possible.insert((*fact, value), union(&spans));
                self.spans.insert((*fact, value), spans);
            }
        }
    }

    /// How well the model explains evidence of a call with these times.
    pub fn fit(&self, evidence: &Evidence, start: Time, end: Time) -> Fit {
        self.fit_condition(&evidence.condition, evidence.freshness, start, end)
    }

    fn fit_condition(
        &self,
        condition: &Condition,
        freshness: Freshness,
        start: Time,
        end: Time,
    ) -> Fit {
        let fits = |parts: &[Condition]| -> Vec<Fit> {
            parts.iter().map(|part| self.fit_condition(part, freshness, start, end)).collect()
        };
        match condition {
            Condition::Is(fact, value) => {
                let age = self.age(*fact, *value, start, end);
                let allowed = self.allowed_age(*fact, freshness, start);
                let excess = if age == Duration::MAX { age } else { age.saturating_sub(allowed) };
                Fit { excess, age }
            }
            // An empty `All` is true, and an empty `Any` is false.
            Condition::All(parts) => fits(parts)
                .into_iter()
                .max()
                .unwrap_or(Fit { excess: Duration::ZERO, age: Duration::ZERO }),
            Condition::Any(parts) => fits(parts)
                .into_iter()
                .min()
                .unwrap_or(Fit { excess: Duration::MAX, age: Duration::MAX }),
        }
    }

    /// Time from the last moment at which the value was possible to the start of the call; zero if
    /// the value was possible during the call, and [`Duration::MAX`] if it was never possible
    /// before the end of the call.
    fn age(&self, fact: Fact, value: bool, start: Time, end: Time) -> Duration {
        let Some(possible) = self.possible.get(&(fact, value)) else {
            // A fact that no operation wrote is false.
            return if value { Duration::MAX } else { Duration::ZERO };
        };
        let spans_begun = possible.partition_point(|(from, _)| *from <= end);
        let Some((_, until)) = spans_begun.checked_sub(1).and_then(|last| possible.get(last))
        else {
            return Duration::MAX;
        };
        start.saturating_sub(*until)
    }

    fn allowed_age(&self, fact: Fact, freshness: Freshness, start: Time) -> Duration {
        match freshness {
            Freshness::Bounded => BOUND,
            Freshness::Current => Duration::ZERO,
            Freshness::SinceToken(op) => self.tokens.get(&op).map_or(BOUND, |token| {
                // The token covers the change of its own call (the call that returned the token), and
                // all changes that were acknowledged before its own call began. At the end of its
                // own call the old value is still possible; 1 ns later it is not.
                let after_end = token.end + Duration::from_nanos(1);
                let since = if token.facts.contains(&fact) { after_end } else { token.start };
                start.saturating_sub(since).min(BOUND)
            }),
        }
    }

    /// Whether writes other than `op` explain that the fact already had this value while `op` ran.
    pub fn may_have_been(&self, fact: Fact, value: bool, op: &Op) -> bool {
        let Some(spans) = self.spans.get(&(fact, value)) else { return !value };
        let mut others = spans.iter().filter(|span| span.op != op.id);
        others.any(|span| span.start <= op.end && span.end >= op.start)
    }

    /// The ids of the last four operations that wrote the fact and began before `time`.
    pub fn writers_before(&self, fact: Fact, time: Time) -> Vec<OpId> {
        let writes = self.writes.get(&fact).into_iter().flatten();
        let mut earlier_writes: Vec<_> = writes.filter(|write| write.start <= time).collect();
        earlier_writes.sort_by_key(|write| write.start);
        earlier_writes.iter().rev().take(4).rev().map(|write| write.op).collect()
    }
}

/// For each user, the numbers of its sessions and the starts of their logins.
type Sessions = HashMap<usize, Vec<(usize, Time)>>;

fn sessions_by_user(ops: &[Op]) -> Sessions {
    let mut sessions = Sessions::new();
    for op in ops.iter().filter(|op| op.method == "Login") {
        let user = op.evidence.iter().find_map(|evidence| user_of(&evidence.condition));
        for effect in &op.effects {
            if let (Effect::Set(Fact::SessionLive(session), true), Some(user)) = (effect, user) {
                sessions.entry(user).or_default().push((*session, op.start));
            }
        }
    }
    sessions
}

/// The user of the first `UserEnabled` in the condition. The evidence of a `Login` has one, which
/// is the user who signs in.
fn user_of(condition: &Condition) -> Option<usize> {
    match condition {
        Condition::Is(Fact::UserEnabled(user), _) => Some(*user),
        Condition::Is(..) => None,
        Condition::All(parts) | Condition::Any(parts) => parts.iter().find_map(user_of),
    }
}

/// The facts that the operation sets if it takes effect.
fn facts_set_by(op: &Op, sessions: &Sessions) -> Vec<(Fact, bool)> {
    let mut facts = Vec::new();
    for effect in &op.effects {
        match effect {
            Effect::Set(fact, value) => facts.push((*fact, *value)),
            Effect::EndSessions { user } => {
                let opened = sessions.get(user).into_iter().flatten();
                let opened = opened.filter(|(_, login_start)| *login_start <= op.end);
                facts.extend(opened.map(|(session, _)| (Fact::SessionLive(*session), false)));
            }
        }
    }
    facts
}

/// The end of the operation's possible effect, and whether it certainly took effect. `None` if it
/// had no effect.
fn effect_of(op: &Op, faults: &[Fault], committed: &BTreeMap<OpId, bool>) -> Option<(Time, bool)> {
    match op.outcome {
        Outcome::Ok => Some((op.end, true)),
        Outcome::Refused { .. } => None,
        Outcome::Unknown(_) | Outcome::Internal(_) => match committed.get(&op.id) {
            Some(false) => None,
            Some(true) => Some((end_of_effect(op, faults), true)),
            None => Some((end_of_effect(op, faults), false)),
        },
    }
}

/// The latest time at which a call without a known result may take effect.
fn end_of_effect(op: &Op, faults: &[Fault]) -> Time {
    let mut end = op.end + EFFECT_LIMIT;
    for fault in faults {
        let recovered = fault.end + fault.recovery.unwrap_or_default();
        if fault.start <= op.end + EFFECT_LIMIT && recovered >= op.start {
            end = end.max(recovered + EFFECT_LIMIT);
        }
    }
    end
}

/// The times at which the writes make the value possible.
fn spans_of(writes: &[Write], value: bool) -> Vec<Span> {
    // The certain writes of the opposite value, ordered by start. `earliest_ends[i]` is the
    // earliest end of the writes from position `i` on.
    let mut opposite_writes: Vec<_> =
        writes.iter().filter(|write| write.is_certain && write.value != value).collect();
    opposite_writes.sort_by_key(|write| write.start);
    let mut earliest_ends: Vec<Time> = opposite_writes.iter().map(|write| write.end).collect();
    for index in (1..earliest_ends.len()).rev() {
        let next = earliest_ends[index];
        earliest_ends[index - 1] = earliest_ends[index - 1].min(next);
    }
    let first_opposite_end_after = |effect_end: Time| {
        let first = opposite_writes.partition_point(|write| write.start <= effect_end);
        earliest_ends.get(first).copied().unwrap_or(Time::MAX)
    };
    let mut spans: Vec<_> = writes
        .iter()
        .filter(|write| write.value == value)
        .map(|write| {
            let end = first_opposite_end_after(write.end).min(write.lost_by);
            Span { op: write.op, start: write.start, end }
        })
        .collect();
    if !value {
        // Every fact is false before the first write.
        let first = earliest_ends.first().copied().unwrap_or(Time::MAX);
        spans.push(Span { op: 0, start: Time::ZERO, end: first });
    }
    spans
}

fn union(spans: &[Span]) -> Vec<(Time, Time)> {
    let mut sorted: Vec<_> = spans.iter().map(|span| (span.start, span.end)).collect();
    sorted.sort_unstable();
    let mut merged: Vec<(Time, Time)> = Vec::new();
    for (start, end) in sorted {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}
