//! Rates: the classes of limited calls, and the limit of each class.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use crate::proto::v1::Limit;

/// A class of methods that share a rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RateClass {
    /// Methods that compare a password.
    SignIn,
    /// Methods that create a user without a permission.
    Registration,
    /// Methods that verify a refresh token.
    Refresh,
    /// Methods that inspect an access token.
    Introspection,
    /// Methods that send a mail to a user, or verify the token from the mail.
    PasswordReset,
    /// Methods that verify an API key.
    ApiKey,
}

/// A maximum number of calls in a time (GCRA). All these calls may come at once. After that, one
/// more call is allowed every `per / calls`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Maximum number of calls in the time `per`.
    pub calls: NonZeroU32,
    /// The time in which `calls` calls are allowed.
    pub per: Duration,
}

/// The rates of all classes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub sign_in: Pair,
    pub registration: Pair,
    pub refresh: Pair,
    pub introspection: Pair,
    pub password_reset: Pair,
    pub api_key: Pair,
}

/// The two rates of a class; `None` means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    /// The rate for calls from one network.
    pub network: Option<Rate>,
    /// The rate for calls for one tenant.
    pub tenant: Option<Rate>,
}

/// One rate, and the calls that it counts together.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) class: RateClass,
    /// The property that all calls of one counter share: `network`, `tenant`, `account` or
    /// `mailbox`.
    pub(super) by: &'static str,
    pub(super) rate: Option<Rate>,
}

impl RateClass {
    pub(super) const ALL: [Self; 6] = [
        Self::SignIn,
        Self::Registration,
        Self::Refresh,
        Self::Introspection,
        Self::PasswordReset,
        Self::ApiKey,
    ];

    /// The class that a policy declares; `None` when the calls are not limited.
    #[must_use]
    pub fn of(limit: Limit) -> Option<Self> {
        match limit {
            Limit::Unspecified | Limit::None => None,
            Limit::SignIn => Some(Self::SignIn),
            Limit::Registration => Some(Self::Registration),
            Limit::Refresh => Some(Self::Refresh),
            Limit::Introspection => Some(Self::Introspection),
            Limit::PasswordReset => Some(Self::PasswordReset),
            Limit::ApiKey => Some(Self::ApiKey),
        }
    }

    /// The class's name in Redis keys and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::Registration => "registration",
            Self::Refresh => "refresh",
            Self::Introspection => "introspection",
            Self::PasswordReset => "password_reset",
            Self::ApiKey => "api_key",
        }
    }

    /// Whether the calls of a public method are counted before their message is read. A call with
    /// an API key is expensive only for some messages, so the operation counts such a call.
    #[must_use]
    pub fn counts_by_metadata(self) -> bool {
        self != Self::ApiKey
    }

    /// Whether all replicas count together. Introspection and refresh are limited because of
    /// their cost for a replica, not because of guesses: their tokens are signed. Other
    /// services introspect a token on each of their requests, and the cache answers. For a
    /// refresh, two round trips to Redis would be a tenth of its cost.
    pub(super) fn is_shared(self) -> bool {
        !matches!(self, Self::Introspection | Self::Refresh)
    }
}

impl Rates {
    fn pair(&self, class: RateClass) -> Pair {
        match class {
            RateClass::SignIn => self.sign_in,
            RateClass::Registration => self.registration,
            RateClass::Refresh => self.refresh,
            RateClass::Introspection => self.introspection,
            RateClass::PasswordReset => self.password_reset,
            RateClass::ApiKey => self.api_key,
        }
    }

    pub(super) fn network(&self, class: RateClass) -> Rule {
        Rule { class, by: "network", rate: self.pair(class).network }
    }

    pub(super) fn tenant(&self, class: RateClass) -> Rule {
        Rule { class, by: "tenant", rate: self.pair(class).tenant }
    }

    /// The rate of mails to one account. No setting changes this rate, because no caller may fill a
    /// user's mailbox.
    pub(super) fn account() -> Rule {
        let rate = NonZeroU32::new(3).map(|calls| Rate { calls, per: Duration::from_mins(15) });
        Rule { class: RateClass::PasswordReset, by: "account", rate }
    }

    /// The rate of mails to one address in all tenants together. An attacker can use the same
    /// address in many tenants.
    pub(super) fn mailbox() -> Rule {
        let rate = NonZeroU32::new(10).map(|calls| Rate { calls, per: Duration::from_mins(15) });
        Rule { class: RateClass::PasswordReset, by: "mailbox", rate }
    }
}

impl Rule {
    /// The key in Redis. The braces are a hash tag, which puts all keys of a tenant into one slot
    /// of a Redis cluster.
    pub(super) fn key(&self, name: &str) -> String {
        let class = self.class.name();
        match name.split_once('/') {
            Some((tenant, rest)) => format!("rate:{{{tenant}}}:{class}:{rest}"),
            None => format!("rate:{{{name}}}:{class}"),
        }
    }
}

impl FromStr for Pair {
    type Err = String;

    /// Parses `<rate>,<rate>`: the rate from one network, and the rate for one tenant. A rate
    /// is `<calls>/<time>` or `off`. `off` alone turns both rates off.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let expected_format = || "must be two rates like 600/1m,6000/1m, or off".to_owned();
        let (network, tenant) = text.split_once(',').ok_or_else(expected_format)?;
        let parse = |text: &str| match text.trim() {
            "off" => Ok(None),
            text => rate(text).map(Some).ok_or_else(expected_format),
        };
        Ok(Self { network: parse(network)?, tenant: parse(tenant)? })
    }
}

fn rate(text: &str) -> Option<Rate> {
    const LONGEST: Duration = Duration::from_hours(24);
    let (calls, per) = text.split_once('/')?;
    let per = humantime::parse_duration(per).ok().filter(|per| *per <= LONGEST)?;
    let rate = Rate { calls: calls.parse().ok()?, per };
    // A shorter interval would be no limit. The setting `off` means no limit.
    (rate.interval() >= Duration::from_micros(1)).then_some(rate)
}

impl Rate {
    /// The interval after which one more call is allowed.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.per / self.calls.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(calls: u32, seconds: u64) -> Option<Rate> {
        Some(Rate { calls: NonZeroU32::new(calls)?, per: Duration::from_secs(seconds) })
    }

    #[test]
    fn rates_are_parsed_and_invalid_rates_are_refused() {
        let parse = |text: &str| text.parse::<Pair>().ok();
        let both = Pair { network: rate(600, 60), tenant: rate(5, 1) };
        assert_eq!(parse("600/1m,5/1s"), Some(both));
        assert_eq!(parse("600/1m, off"), Some(Pair { tenant: None, ..both }));
        assert_eq!(parse("off"), Some(Pair::default()));
        for bad in ["", "600/1m", "0/1m,off", "600,5", "-1/1m,off", "1/2d,off", "9999999/1s,off"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
