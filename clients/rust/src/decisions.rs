//! Decisions of one tenant that are remembered, for as long as the server tells of every
//! change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::unsync::Cache;
use tokio::time::Instant;
use uuid::Uuid;

/// Subjects that decisions are remembered about, at most, and questions about each.
const MAX_SUBJECTS: usize = 10_000;
const MAX_QUESTIONS: usize = 256;

/// The server says something at least every ten seconds: what has been silent for longer
/// tells of nothing any more.
pub(crate) const SILENCE: Duration = Duration::from_secs(12);

/// What a decision is about, beside its subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// A token of another session may not be in force.
    pub session: Uuid,
    pub permission: String,
    /// The scope, as JSON with its keys in order.
    pub scope: String,
}

struct Decision {
    allowed: bool,
    made: Instant,
}

/// What is known of a tenant.
struct Known {
    subjects: Cache<Uuid, HashMap<Question, Decision>>,
    /// When the stream of changes spoke last; `None` while there is none.
    heard: Option<Instant>,
    /// The stream's latest token.
    token: String,
    /// Counts what was forgotten, so that an answer from before is not remembered after.
    forgotten: u64,
    asked: Instant,
}

/// A tenant's decisions.
pub(crate) struct Decisions(Mutex<Known>);

/// What to ask the server with, and to remember its answer by.
pub(crate) struct Asking {
    /// The answer must have seen what the stream told.
    pub token: String,
    forgotten: u64,
}

impl Decisions {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Known {
            subjects: Cache::new(MAX_SUBJECTS),
            heard: None,
            token: String::new(),
            forgotten: 0,
            asked: Instant::now(),
        }))
    }

    /// The decision, where it is remembered and no older than `age`; else how to ask.
    pub(crate) fn find(
        &self,
        subject: Uuid,
        question: &Question,
        age: Duration,
    ) -> Result<bool, Asking> {
        let mut known = self.lock();
        known.asked = Instant::now();
        let is_live = known.heard.is_some_and(|heard| heard.elapsed() < SILENCE);
        if is_live
            && let Some(decision) = known.subjects.get(&subject).and_then(|all| all.get(question))
            && decision.made.elapsed() < age
        {
            return Ok(decision.allowed);
        }
        Err(Asking { token: known.token.clone(), forgotten: known.forgotten })
    }

    /// Remembers an answer, unless something changed since it was asked for.
    pub(crate) fn remember(
        &self,
        subject: Uuid,
        question: Question,
        allowed: bool,
        asked: &Asking,
    ) {
        let mut known = self.lock();
        if known.heard.is_none() || known.forgotten != asked.forgotten {
            return;
        }
        let mut all = known.subjects.remove(&subject).map(|(_, all)| all).unwrap_or_default();
        if all.len() >= MAX_QUESTIONS {
            all.clear();
        }
        all.insert(question, Decision { allowed, made: Instant::now() });
        known.subjects.insert(subject, all);
    }

    /// The stream told something: of these subjects, or of all.
    pub(crate) fn heard(&self, subjects: &[Uuid], all: bool, token: String) {
        let mut known = self.lock();
        // Before there was a stream nobody told of anything.
        if all || known.heard.is_none() {
            known.subjects.clear();
            known.forgotten += 1;
        }
        for subject in subjects {
            known.subjects.remove(subject);
            known.forgotten += 1;
        }
        known.heard = Some(Instant::now());
        known.token = token;
    }

    /// The stream has ended: nothing is known any more.
    pub(crate) fn lost(&self) {
        let mut known = self.lock();
        known.subjects.clear();
        known.heard = None;
        known.token.clear();
        known.forgotten += 1;
    }

    /// How long nobody has asked.
    pub(crate) fn idle(&self) -> Duration {
        self.lock().asked.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_mins(1);

    fn question(permission: &str) -> Question {
        let (session, scope) = (Uuid::nil(), "{}".into());
        Question { session, permission: permission.into(), scope }
    }

    fn answer(decisions: &Decisions, subject: Uuid) {
        let asked = decisions.find(subject, &question("a:b"), AGE).unwrap_err();
        decisions.remember(subject, question("a:b"), true, &asked);
    }

    fn knows(decisions: &Decisions, subject: Uuid) -> bool {
        decisions.find(subject, &question("a:b"), AGE).is_ok()
    }

    #[test]
    fn nothing_is_remembered_while_nobody_tells_of_changes() {
        let (decisions, subject) = (Decisions::new(), Uuid::now_v7());
        answer(&decisions, subject);
        assert!(!knows(&decisions, subject));
        decisions.heard(&[], false, "1".into());
        answer(&decisions, subject);
        assert!(knows(&decisions, subject));
        assert!(decisions.find(subject, &question("a:c"), AGE).is_err());
        assert!(decisions.find(subject, &question("a:b"), Duration::ZERO).is_err());
        decisions.lost();
        assert!(!knows(&decisions, subject));
    }

    #[test]
    fn a_change_is_forgotten_for_its_subjects_alone() {
        let (decisions, changed, other) = (Decisions::new(), Uuid::now_v7(), Uuid::now_v7());
        decisions.heard(&[], false, "1".into());
        answer(&decisions, changed);
        answer(&decisions, other);
        decisions.heard(&[changed], false, "2".into());
        assert!(!knows(&decisions, changed) && knows(&decisions, other));
        decisions.heard(&[], true, "3".into());
        assert!(!knows(&decisions, other));
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_remembered_after_it() {
        let (decisions, subject) = (Decisions::new(), Uuid::now_v7());
        decisions.heard(&[], false, "1".into());
        let asked = decisions.find(subject, &question("a:b"), AGE).unwrap_err();
        decisions.heard(&[subject], false, "2".into());
        decisions.remember(subject, question("a:b"), true, &asked);
        assert!(!knows(&decisions, subject));
    }
}
