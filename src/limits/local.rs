//! Limits that one replica counts alone: while Redis is unavailable, and for calls that are too
//! frequent to ask Redis.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

use super::rates::{Rate, RateClass, Rates, Rule};

/// Maximum number of names that each rule counts separately. All further names share one count.
const NAMES: usize = 100_000;

/// The name of that shared count.
const OTHERS: &str = "";

/// Number of guesses at one account from one network that may come at once, and the time until
/// each allows another one.
const GUESSES: u32 = 10;
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

    /// The time until the next call is allowed; zero when this call was counted.
    pub(super) fn take(&self, rule: &Rule, name: &str) -> Duration {
        self.ask(self.rates.get(&(rule.class, rule.by)), name)
    }

    /// The time until the next guess is allowed; zero when this guess was counted.
    pub(super) fn guess(&self, name: &str) -> Duration {
        self.ask(self.guesses.as_ref(), name)
    }

    fn ask(&self, counter: Option<&Counter>, name: &str) -> Duration {
        let Some(counter) = counter else { return Duration::ZERO };
        if counter.len() >= NAMES {
            counter.retain_recent();
        }
        let name = if counter.len() < NAMES { name } else { OTHERS };
        let taken = counter.check_key(&name.to_owned());
        taken.err().map_or(Duration::ZERO, |until| until.wait_time_from(self.clock.now()))
    }
}

fn counter(rate: Rate) -> Option<Counter> {
    let quota = Quota::with_period(rate.interval())?.allow_burst(rate.calls);
    Some(RateLimiter::hashmap(quota))
}
