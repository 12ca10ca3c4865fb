//! Cache of decisions about the subjects of one tenant. The cache is used only while the server
//! announces every change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::unsync::Cache;
use tokio::time::Instant;
use uuid::Uuid;

/// Maximum number of subjects with cached decisions.
const MAX_SUBJECTS: usize = 10_000;

/// Maximum number of cached decisions about each subject.
const MAX_QUESTIONS: usize = 256;

/// Maximum time between two messages of the stream. The server sends a message at least every ten
/// seconds, so a stream without a message for this time is dead.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(12);

/// The question that a decision answers, without the subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Session of the access token. A Check also verifies this token. So an answer for one session
    /// of a subject is not valid for another session, which may have been revoked.
    pub session: Uuid,
    pub permission: String,
    /// The scope, as JSON with sorted keys.
    pub scope: String,
}

struct Decision {
    allowed: bool,
    /// Time when the response arrived.
    decided_at: Instant,
}

/// The cached state of a tenant.
struct State {
    subjects: Cache<Uuid, HashMap<Question, Decision>>,
    /// Time of the last message of the stream; `None` while there is no stream.
    last_message: Option<Instant>,
    /// The latest consistency token of the stream.
    consistency_token: String,
    /// Number of invalidations so far. A response to a request that was sent before an invalidation
    /// is not cached.
    invalidations: u64,
    /// Time of the last lookup.
    last_lookup: Instant,
}

/// The cache of a tenant's decisions.
pub(crate) struct Decisions(Mutex<State>);

/// A cache miss: the data that is needed to ask the server and to cache the response.
pub(crate) struct CacheMiss {
    /// The consistency token for the request: the decision must include the announced changes.
    pub consistency_token: String,
    invalidations: u64,
}

impl Decisions {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            subjects: Cache::new(MAX_SUBJECTS),
            last_message: None,
            consistency_token: String::new(),
            invalidations: 0,
            last_lookup: Instant::now(),
        }))
    }

    /// Returns the cached decision if it is younger than `max_age`, else a cache miss.
    pub(crate) fn find(
        &self,
        subject: Uuid,
        question: &Question,
        max_age: Duration,
    ) -> Result<bool, CacheMiss> {
        let mut state = self.lock();
        state.last_lookup = Instant::now();
        let is_live = state.last_message.is_some_and(|time| time.elapsed() < MAX_SILENCE);
        if is_live
            && let Some(decision) =
                state.subjects.get(&subject).and_then(|decisions| decisions.get(question))
            && decision.decided_at.elapsed() < max_age
        {
            return Ok(decision.allowed);
        }
        Err(CacheMiss {
            consistency_token: state.consistency_token.clone(),
            invalidations: state.invalidations,
        })
    }

    /// Caches the response after a cache miss, unless a change was announced since the miss.
    pub(crate) fn insert(
        &self,
        subject: Uuid,
        question: Question,
        allowed: bool,
        miss: &CacheMiss,
    ) {
        let mut state = self.lock();
        if state.last_message.is_none() || state.invalidations != miss.invalidations {
            return;
        }
        let mut subject_decisions =
            state.subjects.remove(&subject).map(|(_, decisions)| decisions).unwrap_or_default();
        if subject_decisions.len() >= MAX_QUESTIONS {
            subject_decisions.clear();
        }
        subject_decisions.insert(question, Decision { allowed, decided_at: Instant::now() });
        state.subjects.insert(subject, subject_decisions);
    }

    /// Applies a message of the stream: removes the decisions about these subjects, or about all
    /// subjects.
    pub(crate) fn apply_message(
        &self,
        subjects: &[Uuid],
        all_subjects: bool,
        consistency_token: String,
    ) {
        let mut state = self.lock();
        // At the first message of a stream everything is removed, because the changes before the
        // stream were not announced.
        if all_subjects || state.last_message.is_none() {
            state.subjects.clear();
            state.invalidations += 1;
        }
        for subject in subjects {
            state.subjects.remove(subject);
            state.invalidations += 1;
        }
        state.last_message = Some(Instant::now());
        state.consistency_token = consistency_token;
    }

    /// Clears the cache because the stream has ended.
    pub(crate) fn clear_after_stream_end(&self) {
        let mut state = self.lock();
        state.subjects.clear();
        state.last_message = None;
        state.consistency_token.clear();
        state.invalidations += 1;
    }

    /// Time since the last lookup.
    pub(crate) fn time_since_lookup(&self) -> Duration {
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

    fn cache_decision(decisions: &Decisions, subject: Uuid) {
        let miss = decisions.find(subject, &question("a:b"), AGE).unwrap_err();
        decisions.insert(subject, question("a:b"), true, &miss);
    }

    fn has_decision(decisions: &Decisions, subject: Uuid) -> bool {
        decisions.find(subject, &question("a:b"), AGE).is_ok()
    }

    #[test]
    fn nothing_is_cached_without_a_stream_of_changes() {
        let (decisions, subject) = (Decisions::new(), Uuid::now_v7());
        cache_decision(&decisions, subject);
        assert!(!has_decision(&decisions, subject));
        decisions.apply_message(&[], false, "1".into());
        cache_decision(&decisions, subject);
        assert!(has_decision(&decisions, subject));
        assert!(decisions.find(subject, &question("a:c"), AGE).is_err());
        assert!(decisions.find(subject, &question("a:b"), Duration::ZERO).is_err());
        decisions.clear_after_stream_end();
        assert!(!has_decision(&decisions, subject));
    }

    #[test]
    fn a_change_removes_only_decisions_about_its_subjects() {
        let (decisions, changed_subject, other_subject) =
            (Decisions::new(), Uuid::now_v7(), Uuid::now_v7());
        decisions.apply_message(&[], false, "1".into());
        cache_decision(&decisions, changed_subject);
        cache_decision(&decisions, other_subject);
        decisions.apply_message(&[changed_subject], false, "2".into());
        assert!(
            !has_decision(&decisions, changed_subject) && has_decision(&decisions, other_subject)
        );
        decisions.apply_message(&[], true, "3".into());
        assert!(!has_decision(&decisions, other_subject));
    }

    #[test]
    fn a_response_to_a_request_from_before_a_change_is_not_cached() {
        let (decisions, subject) = (Decisions::new(), Uuid::now_v7());
        decisions.apply_message(&[], false, "1".into());
        let miss = decisions.find(subject, &question("a:b"), AGE).unwrap_err();
        decisions.apply_message(&[subject], false, "2".into());
        decisions.insert(subject, question("a:b"), true, &miss);
        assert!(!has_decision(&decisions, subject));
    }
}
