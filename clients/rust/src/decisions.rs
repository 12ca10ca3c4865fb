//! Cache of the decisions of one tenant. It is used only while the server announces every change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::unsync::Cache;
use tokio::time::Instant;
use uuid::Uuid;

/// Maximum number of subjects with cached decisions, and of decisions for each subject.
const MAX_SUBJECTS: usize = 10_000;
const MAX_QUESTIONS: usize = 256;

/// Maximum time between two messages of the stream. The server sends a message at least every ten
/// seconds; a stream that is silent for longer than this is dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(12);

/// The question that a decision answers, without the subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Part of the question, because a token of another session may be invalid.
    pub session: Uuid,
    pub permission: String,
    /// The scope, as JSON with sorted keys.
    pub scope: String,
}

struct Decision {
    allowed: bool,
    made: Instant,
}

/// The cached state of a tenant.
struct Known {
    subjects: Cache<Uuid, HashMap<Question, Decision>>,
    /// Time of the last message of the stream; `None` while there is no stream.
    heard: Option<Instant>,
    /// The latest consistency token of the stream.
    token: String,
    /// Counts invalidations, so that an answer to an earlier question is not cached after one.
    forgotten: u64,
    asked: Instant,
}

/// The cache of a tenant's decisions.
pub(crate) struct Decisions(Mutex<Known>);

/// A cache miss: the data to ask the server with, and to cache its answer.
pub(crate) struct Asking {
    /// The consistency token for the request: the answer must include the announced changes.
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

    /// Returns the cached decision if it is younger than `age`, else the data to ask the server.
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

    /// Caches an answer, unless a change was announced since the question was asked.
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

    /// Handles a message of the stream: removes the decisions about these subjects, or about all.
    pub(crate) fn heard(&self, subjects: &[Uuid], all: bool, token: String) {
        let mut known = self.lock();
        // At the first message of a stream: changes before it were not announced.
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

    /// Clears the cache because the stream has ended.
    pub(crate) fn lost(&self) {
        let mut known = self.lock();
        known.subjects.clear();
        known.heard = None;
        known.token.clear();
        known.forgotten += 1;
    }

    /// Time since the last lookup.
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
