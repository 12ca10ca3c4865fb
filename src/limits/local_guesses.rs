//! Counts guesses in the memory of this replica, while Redis is unavailable. As in Redis, only
//! wrong guesses count, and guesses in flight are bounded because all of them may turn out wrong.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Maximum number of keys that are counted separately. All further keys are counted together.
const MAX_KEYS: usize = 100_000;

/// The key under which all further keys are counted together.
const SHARED_KEY: &str = "";

/// Number of failures after which the next guess has to wait.
const FREE_FAILURES: u32 = 10;

/// Part of the maximum number of guesses in flight. The maximum is this number plus the number of
/// failures that are still free.
const EXTRA_IN_FLIGHT: u32 = 50;

/// Time after which one failure is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum number of counted failures. It bounds the wait to an hour: 120 * [`FORGET_INTERVAL`].
const MAX_FAILURES: u32 = FREE_FAILURES + 119;

/// The wait when too many guesses are in flight.
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(1);

/// The counters of guesses, by key. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub(super) struct LocalGuesses(Arc<Mutex<HashMap<String, Counter>>>);

#[derive(Debug)]
struct Counter {
    failures: u32,
    in_flight: u32,
    /// Time up to which old failures were forgotten.
    forgotten_until: Instant,
}

/// A guess in flight. Dropping the value ends the guess.
#[derive(Debug)]
pub(super) struct GuessInFlight {
    guesses: LocalGuesses,
    key: String,
}

impl LocalGuesses {
    /// Begins a guess.
    ///
    /// # Errors
    /// The time to wait, when no guess is allowed now.
    pub(super) fn begin(&self, key: &str) -> Result<GuessInFlight, Duration> {
        let now = Instant::now();
        let mut counters = self.lock();
        let key = counter_key(&mut counters, key, now);
        let counter = counters.entry(key.clone()).or_insert_with(|| Counter::new(now));
        counter.forget_old(now);
        counter.check(now)?;
        counter.in_flight += 1;
        Ok(GuessInFlight { guesses: self.clone(), key })
    }

    /// Counts a failure.
    pub(super) fn record_failure(&self, key: &str) {
        let now = Instant::now();
        let mut counters = self.lock();
        let key = counter_key(&mut counters, key, now);
        let counter = counters.entry(key).or_insert_with(|| Counter::new(now));
        counter.forget_old(now);
        counter.failures = (counter.failures + 1).min(MAX_FAILURES);
    }

    /// Forgets the failures of a key, after a success.
    pub(super) fn record_success(&self, key: &str) {
        // The shared counter is not changed, because it also counts the failures of other keys.
        if let Some(counter) = self.lock().get_mut(key).filter(|_| key != SHARED_KEY) {
            counter.failures = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Counter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of the counter for `key`: `key` itself, or [`SHARED_KEY`] when too many keys are counted
/// separately.
fn counter_key(counters: &mut HashMap<String, Counter>, key: &str, now: Instant) -> String {
    if counters.len() >= MAX_KEYS && !counters.contains_key(key) {
        counters.retain(|_, counter| {
            counter.forget_old(now);
            counter.is_in_use()
        });
    }
    let is_separate = counters.len() < MAX_KEYS || counters.contains_key(key);
    if is_separate { key.to_owned() } else { SHARED_KEY.to_owned() }
}

impl Counter {
    fn new(now: Instant) -> Self {
        Self { failures: 0, in_flight: 0, forgotten_until: now }
    }

    fn is_in_use(&self) -> bool {
        self.failures > 0 || self.in_flight > 0
    }

    fn forget_old(&mut self, now: Instant) {
        if self.failures == 0 {
            self.forgotten_until = now;
            return;
        }
        let elapsed = now.saturating_duration_since(self.forgotten_until);
        let intervals = elapsed.as_secs() / FORGET_INTERVAL.as_secs();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX).min(MAX_FAILURES);
        self.failures = self.failures.saturating_sub(intervals);
        self.forgotten_until += FORGET_INTERVAL * intervals;
    }

    fn check(&self, now: Instant) -> Result<(), Duration> {
        if self.failures >= FREE_FAILURES {
            let excess = self.failures - FREE_FAILURES + 1;
            let elapsed = now.saturating_duration_since(self.forgotten_until);
            return Err((FORGET_INTERVAL * excess).saturating_sub(elapsed));
        }
        let max_in_flight = FREE_FAILURES - self.failures + EXTRA_IN_FLIGHT;
        if self.in_flight < max_in_flight { Ok(()) } else { Err(IN_FLIGHT_WAIT) }
    }
}

impl Drop for GuessInFlight {
    fn drop(&mut self) {
        let mut counters = self.guesses.lock();
        if let Some(counter) = counters.get_mut(&self.key) {
            counter.in_flight = counter.in_flight.saturating_sub(1);
            if !counter.is_in_use() {
                counters.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N34: without Redis, right guesses are not limited, and wrong guesses are.
    #[test]
    fn a_guess_has_to_wait_after_too_many_failures_until_they_are_forgotten() {
        let guesses = LocalGuesses::default();
        for _ in 0..3 * FREE_FAILURES {
            drop(guesses.begin("a").expect("right guesses are allowed"));
        }
        assert!(guesses.lock().is_empty(), "a right guess leaves no entry");
        for _ in 0..FREE_FAILURES {
            drop(guesses.begin("a").expect("the first wrong guesses are allowed"));
            guesses.record_failure("a");
        }
        let wait = guesses.begin("a").expect_err("must wait");
        // The wait is one interval, minus the time since the first failure.
        assert!(wait <= FORGET_INTERVAL && wait > Duration::from_secs(25), "{wait:?}");
        drop(guesses.begin("b").expect("another key is not limited"));

        let mut counter = guesses.lock().remove("a").expect("the key has a counter");
        let later = Instant::now() + 2 * FORGET_INTERVAL;
        counter.forget_old(later);
        assert_eq!(counter.failures, FREE_FAILURES - 2);
        counter.failures = MAX_FAILURES;
        let wait = counter.check(counter.forgotten_until).expect_err("must wait");
        assert_eq!(wait, Duration::from_hours(1));
    }

    #[test]
    fn guesses_in_flight_are_bounded() {
        let guesses = LocalGuesses::default();
        let in_flight: Vec<_> = (0..100).map_while(|_| guesses.begin("a").ok()).collect();
        assert_eq!(in_flight.len(), 60, "10 free failures and 50 more guesses");
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let guesses = LocalGuesses::default();
        (0..FREE_FAILURES).for_each(|_| guesses.record_failure("a"));
        guesses.record_success("a");
        drop(guesses.begin("a").expect("a guess is allowed after the success"));
    }
}
