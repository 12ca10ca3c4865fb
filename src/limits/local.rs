//! Rate limits that each replica counts alone: while Redis is unavailable, and for calls that are
//! too frequent for a request to Redis each time.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

use super::rates::{Rate, RateClass, Rates, Rule};

/// Maximum number of rate-limit keys that each rule counts separately. All further keys share one
/// counter.
const MAX_KEYS: usize = 100_000;

/// The key of that shared counter.
const SHARED_KEY: &str = "";

/// Maximum number of guesses at one account from one network that are allowed without a pause.
const GUESSES: u32 = 10;

/// Time after which one more guess is allowed.
const GUESS_INTERVAL: Duration = Duration::from_secs(30);

type Counter = RateLimiter<String, HashMapStateStore<String>, DefaultClock>;

pub(super) struct LocalLimiter {
    clock: DefaultClock,
    rates: HashMap<(RateClass, &'static str), Counter>,
    guesses: Option<Counter>,
}

impl LocalLimiter {
    pub(super) fn new(rates: &Rates) -> Self {
        let rules = RateClass::ALL.into_iter().flat_map(|c| [rates.network(c), rates.tenant(c)]);
        let rules = rules.chain([Rates::account(), Rates::mailbox()]);
        let counters = rules.filter_map(|rule| Some(((rule.class, rule.by), counter(rule.rate?)?)));
        let calls = NonZeroU32::new(GUESSES);
        let guesses = calls.map(|calls| Rate { calls, per: GUESS_INTERVAL * GUESSES });
        Self {
            clock: DefaultClock::default(),
            rates: counters.collect(),
            guesses: guesses.and_then(counter),
        }
    }

    /// Counts a call. Zero if this call is allowed; otherwise the time to wait.
    pub(super) fn take(&self, rule: &Rule, key: &str) -> Duration {
        self.check(self.rates.get(&(rule.class, rule.by)), key)
    }

    /// Counts a guess. Zero if this guess is allowed; otherwise the time to wait.
    pub(super) fn guess(&self, key: &str) -> Duration {
        self.check(self.guesses.as_ref(), key)
    }

    fn check(&self, counter: Option<&Counter>, key: &str) -> Duration {
        let Some(counter) = counter else { return Duration::ZERO };
        if counter.len() >= MAX_KEYS {
            counter.retain_recent();
        }
        let key = if counter.len() < MAX_KEYS { key } else { SHARED_KEY };
        let result = counter.check_key(&key.to_owned());
        result.err().map_or(Duration::ZERO, |not_until| not_until.wait_time_from(self.clock.now()))
    }
}

fn counter(rate: Rate) -> Option<Counter> {
    let quota = Quota::with_period(rate.interval())?.allow_burst(rate.calls);
    Some(RateLimiter::hashmap(quota))
}
