//! The history of a run: every operation with its times, its outcome, and what follows from it.
//!
//! A [`Fact`] is one bit of the service's state. An operation that changes the state has
//! [`Effect`]s, which set facts. An answer has [`Evidence`]: a condition on facts that must have
//! been true, and how old the data of the answer may be.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

/// Time since the start of the run.
pub type Time = Duration;

/// Number of an operation. The correlation id of the call contains it.
pub type OpId = u64;

/// One bit of the service's state. Tenants, users, roles, permissions and sessions are numbered in
/// the order in which the run created them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    TenantActive(usize),
    UserEnabled(usize),
    Assigned { user: usize, role: usize },
    Grants { role: usize, permission: usize },
    SessionLive(usize),
}

/// A condition on facts.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Is(Fact, bool),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// How a completed operation changes facts.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Set(Fact, bool),
    /// Ends all sessions of a user.
    EndSessions {
        user: usize,
    },
}

/// How old the data of an answer may be when the call begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Freshness {
    /// At most the bound of docs/consistency.md.
    Bounded,
    /// As for `Bounded`, and not older than the response of this operation, whose consistency
    /// token the call sent.
    SinceToken(OpId),
    /// Not older than the beginning of the call.
    Current,
}

/// A condition that must have been true at a time that the freshness allows.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub condition: Condition,
    pub freshness: Freshness,
}

/// What the client knows about the result of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Ok,
    /// The server refused the call, so the call changed nothing.
    Refused {
        code: String,
        reason: String,
    },
    /// The call may have had its effect, or may have it later: there was no response, or the
    /// response does not say whether the call had its effect.
    Unknown(String),
    /// The status of the response means a defect of the server, for example `INTERNAL`.
    Internal(String),
}

/// The audit event that a successful operation must record.
#[derive(Clone, Debug)]
pub struct ExpectedEvent {
    pub kind: &'static str,
    pub when: EventWhen,
}

/// When an operation records its event.
#[derive(Clone, Debug)]
pub enum EventWhen {
    Always,
    /// Only when the operation changed this fact to this value.
    Changed(Fact, bool),
    /// The history does not show whether the operation changed something.
    Perhaps,
}

/// The use of a refresh token.
#[derive(Clone, Debug)]
pub struct RefreshUse {
    pub session: usize,
    /// Id of the presented token.
    pub presented: String,
    pub request_id: String,
    /// Id of the new refresh token, if the call succeeded.
    pub successor: Option<String>,
}

/// An operation of the history.
#[derive(Clone, Debug)]
pub struct Op {
    pub id: OpId,
    pub replica: usize,
    pub method: &'static str,
    /// Arguments, for people.
    pub arguments: String,
    pub start: Time,
    pub end: Time,
    pub outcome: Outcome,
    pub tenant: Option<usize>,
    pub effects: Vec<Effect>,
    pub evidence: Vec<Evidence>,
    pub event: Option<ExpectedEvent>,
    pub refresh: Option<RefreshUse>,
    /// The operation whose consistency token the call sent.
    pub token: Option<OpId>,
    /// Rows of other tenants that the answer contains.
    pub foreign_rows: Vec<String>,
    /// Whether the operation reads the state after the workload has ended.
    pub is_final: bool,
}

/// A fault that a nemesis injected.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    pub nemesis: &'static str,
    pub target: String,
    pub start: Time,
    /// The time when the fault, and a fault that overlapped it, were removed.
    pub end: Time,
    /// Time from the removal until every replica answered and wrote again; `None` if that did not
    /// happen in time.
    pub recovery: Option<Duration>,
}

/// Collects the operations of all workers.
pub struct History {
    began: Instant,
    next_id: AtomicU64,
    ops: Mutex<Vec<Op>>,
}

impl History {
    /// An empty history, whose first operation gets this number.
    pub fn new(first_id: OpId) -> Self {
        Self { began: Instant::now(), next_id: AtomicU64::new(first_id), ops: Mutex::default() }
    }

    pub fn now(&self) -> Time {
        self.began.elapsed()
    }

    pub fn next_id(&self) -> OpId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn push(&self, op: Op) {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    /// Removes and returns all operations, ordered by their ids.
    pub fn take(&self) -> Vec<Op> {
        let mut ops = std::mem::take(&mut *self.ops.lock().unwrap_or_else(PoisonError::into_inner));
        ops.sort_by_key(|op| op.id);
        ops
    }
}

impl ExpectedEvent {
    /// The event that a successful operation always records.
    pub fn always(kind: &'static str) -> Self {
        Self { kind, when: EventWhen::Always }
    }

    /// The event that a successful operation records if it changes a fact.
    pub fn if_changed(kind: &'static str, fact: Fact, value: bool) -> Self {
        Self { kind, when: EventWhen::Changed(fact, value) }
    }
}

impl Condition {
    /// The condition that is true exactly when this condition is false.
    pub fn negated(&self) -> Self {
        let negate_all = |parts: &[Self]| parts.iter().map(Self::negated).collect();
        match self {
            Self::Is(fact, value) => Self::Is(*fact, !value),
            Self::All(parts) => Self::Any(negate_all(parts)),
            Self::Any(parts) => Self::All(negate_all(parts)),
        }
    }
}

impl Op {
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused { .. })
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    /// Whether the server refused the call with this reason.
    pub fn is_refused_with(&self, expected: &str) -> bool {
        matches!(&self.outcome, Outcome::Refused { reason, .. } if reason == expected)
    }

    pub fn add_evidence(&mut self, condition: Condition, freshness: Freshness) {
        self.evidence.push(Evidence { condition, freshness });
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "#{} {:.3}..{:.3}s replica {} {}({}) {}",
            self.id,
            self.start.as_secs_f64(),
            self.end.as_secs_f64(),
            self.replica,
            self.method,
            self.arguments,
            self.outcome
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Refused { code, reason } => write!(f, "refused {code} {reason}"),
            Self::Unknown(what) => write!(f, "unknown: {what}"),
            Self::Internal(what) => write!(f, "internal: {what}"),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TenantActive(tenant) => write!(f, "tenant {tenant} is active"),
            Self::UserEnabled(user) => write!(f, "user {user} is enabled"),
            Self::Assigned { user, role } => write!(f, "user {user} has role {role}"),
            Self::Grants { role, permission } => {
                write!(f, "role {role} grants permission {permission}")
            }
            Self::SessionLive(session) => write!(f, "session {session} is live"),
        }
    }
}
