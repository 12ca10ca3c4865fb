//! Limits that each replica counts alone. While Redis is unavailable, these are all limits. The
//! rates of frequent calls are always counted here, because a request to Redis for each call would
//! cost too much.

use std::{collections::HashMap, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

use super::{
    local_guesses::LocalGuesses,
    rates::{Rate, RateClass, RateLimit, Rates},
};

/// Maximum number of keys that each limit counts separately. All further keys are counted together.
const MAX_KEYS: usize = 100_000;

/// The key under which all further keys are counted together.
const SHARED_KEY: &str = "";

/// The counters of one limit, by key.
type Counters = RateLimiter<String, HashMapStateStore<String>, DefaultClock>;

pub(super) struct LocalLimiter {
    clock: DefaultClock,
    /// The counters of calls, by the class and the property ([`RateLimit::by`]) of the limit.
    call_counters: HashMap<(RateClass, &'static str), Counters>,
    /// The counters of guesses.
    pub(super) guesses: LocalGuesses,
}

impl LocalLimiter {
    pub(super) fn new(rates: &Rates) -> Self {
        let limits = RateClass::ALL.into_iter().flat_map(|c| [rates.network(c), rates.tenant(c)]);
        let limits = limits.chain([Rates::account(), Rates::mailbox()]);
        let call_counters =
            limits.filter_map(|limit| Some(((limit.class, limit.by), new_counters(limit.rate?)?)));
        Self {
            clock: DefaultClock::default(),
            call_counters: call_counters.collect(),
            guesses: LocalGuesses::default(),
        }
    }

    /// Counts the call if the call is within the rate, and returns zero. Otherwise counts nothing,
    /// and returns the time to wait.
    pub(super) fn count_call(&self, limit: &RateLimit, key: &str) -> Duration {
        self.count(self.call_counters.get(&(limit.class, limit.by)), key)
    }

    fn count(&self, counters: Option<&Counters>, key: &str) -> Duration {
        let Some(counters) = counters else { return Duration::ZERO };
        if counters.len() >= MAX_KEYS {
            // Removes the counters of keys without recent calls.
            counters.retain_recent();
        }
        let key = if counters.len() < MAX_KEYS { key } else { SHARED_KEY };
        let result = counters.check_key(&key.to_owned());
        result.err().map_or(Duration::ZERO, |not_until| not_until.wait_time_from(self.clock.now()))
    }
}

fn new_counters(rate: Rate) -> Option<Counters> {
    let quota = Quota::with_period(rate.interval())?.allow_burst(rate.calls);
    Some(RateLimiter::hashmap(quota))
}
