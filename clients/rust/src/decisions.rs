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
struct State {
    subjects: Cache<Uuid, HashMap<Question, Decision>>,
    /// Time of the last message of the stream; `None` while there is no stream.
    last_message: Option<Instant>,
    /// The latest consistency token of the stream.
    token: String,
    /// Counts invalidations, so that an answer to an earlier question is not cached after one.
    invalidations: u64,
    /// Time of the last lookup.
    last_lookup: Instant,
}

/// The cache of a tenant's decisions.
pub(crate) struct Decisions(Mutex<State>);

/// A cache miss: the data to ask the server with, and to cache its answer.
pub(crate) struct Asking {
    /// The consistency token for the request: the answer must include the announced changes.
    pub token: String,
    invalidations: u64,
}

impl Decisions {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            subjects: Cache::new(MAX_SUBJECTS),
            last_message: None,
            token: String::new(),
            invalidations: 0,
            last_lookup: Instant::now(),
        }))
    }

    /// Returns the cached decision if it is younger than `age`, else the data to ask the server.
    pub(crate) fn find(
        &self,
        subject: Uuid,
        question: &Question,
        age: Duration,
    ) -> Result<bool, Asking> {
        let mut state = self.lock();
        state.last_lookup = Instant::now();
        let is_live = state.last_message.is_some_and(|heard| heard.elapsed() < SILENCE);
        if is_live
            && let Some(decision) = state.subjects.get(&subject).and_then(|all| all.get(question))
            && decision.made.elapsed() < age
        {
            return Ok(decision.allowed);
        }
        Err(Asking { token: state.token.clone(), invalidations: state.invalidations })
    }

    /// Caches an answer, unless a change was announced since the question was asked.
    pub(crate) fn remember(
        &self,
        subject: Uuid,
        question: Question,
        allowed: bool,
        asked: &Asking,
    ) {
        let mut state = self.lock();
        if state.last_message.is_none() || state.invalidations != asked.invalidations {
            return;
        }
        let mut all = state.subjects.remove(&subject).map(|(_, all)| all).unwrap_or_default();
        if all.len() >= MAX_QUESTIONS {
            all.clear();
        }
        all.insert(question, Decision { allowed, made: Instant::now() });
        state.subjects.insert(subject, all);
    }

    /// Handles a message of the stream: removes the decisions about these subjects, or about all.
    pub(crate) fn heard(&self, subjects: &[Uuid], all: bool, token: String) {
        let mut state = self.lock();
        // At the first message of a stream: changes before it were not announced.
        if all || state.last_message.is_none() {
            state.subjects.clear();
            state.invalidations += 1;
        }
        for subject in subjects {
            state.subjects.remove(subject);
            state.invalidations += 1;
        }
        state.last_message = Some(Instant::now());
        state.token = token;
    }

    /// Clears the cache because the stream has ended.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        state.subjects.clear();
        state.last_message = None;
        state.token.clear();
        state.invalidations += 1;
    }

    /// Time since the last lookup.
    pub(crate) fn idle(&self) -> Duration {
        self.lock().last_lookup.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
    fn nothing_is_cached_without_a_stream_of_changes() {
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
    fn a_change_removes_only_decisions_about_its_subjects() {
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
    fn an_answer_to_a_question_before_a_change_is_not_cached() {
        let (decisions, subject) = (Decisions::new(), Uuid::now_v7());
        decisions.heard(&[], false, "1".into());
        let asked = decisions.find(subject, &question("a:b"), AGE).unwrap_err();
        decisions.heard(&[subject], false, "2".into());
        decisions.remember(subject, question("a:b"), true, &asked);
        assert!(!knows(&decisions, subject));
    }
}
