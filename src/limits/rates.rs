//! Rates: the classes of limited calls, and the rates of each class.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use crate::proto::v1::Limit;

/// A class of methods that share a rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RateClass {
    /// Methods that compare a password.
    SignIn,
    /// Methods by which a caller without any permission creates a user.
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

/// A rate limit (GCRA): a burst of `calls` calls, then one call every `per / calls`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Maximum number of calls in a burst.
    pub calls: NonZeroU32,
    /// The period after which a full burst is allowed again.
    pub per: Duration,
}

/// The rates of all classes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub sign_in: ClassRates,
    pub registration: ClassRates,
    pub refresh: ClassRates,
    pub introspection: ClassRates,
    pub password_reset: ClassRates,
    pub api_key: ClassRates,
}

/// The two rates of a class; `None` means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassRates {
    /// The rate for calls from one network.
    pub network: Option<Rate>,
    /// The rate for calls for one tenant.
    pub tenant: Option<Rate>,
}

/// The limit of the calls of one class that have the same network, tenant, account or mailbox.
#[derive(Clone, Copy)]
pub(super) struct RateLimit {
    pub(super) class: RateClass,
    /// The property by which calls are counted separately: `network`, `tenant`, `account` or
    /// `mailbox`.
    pub(super) by: &'static str,
    /// The rate; `None` means no limit.
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

    /// The class that a method's policy declares; `None` when the method has no rate limit.
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

    /// Whether the calls of a public method are counted before their message is decoded. A call
    /// with an API key is expensive only for some messages, so the operation counts the call after
    /// the message is decoded.
    #[must_use]
    pub fn is_counted_before_decoding(self) -> bool {
        self != Self::ApiKey
    }

    /// Whether all replicas count the calls together, in Redis. For introspection and refresh, each
    /// replica counts alone. The limits of these classes bound the cost for a replica. The limits
    /// need not prevent guesses, because the tokens are signed. Redis would cost too much: other
    /// services introspect a token on each of their requests, and for a refresh, two round trips to
    /// Redis would be a tenth of the cost.
    pub(super) fn is_shared(self) -> bool {
        !matches!(self, Self::Introspection | Self::Refresh)
    }
}

impl Rates {
    fn rates_of(&self, class: RateClass) -> ClassRates {
        match class {
            RateClass::SignIn => self.sign_in,
            RateClass::Registration => self.registration,
            RateClass::Refresh => self.refresh,
            RateClass::Introspection => self.introspection,
            RateClass::PasswordReset => self.password_reset,
            RateClass::ApiKey => self.api_key,
        }
    }

    pub(super) fn network(&self, class: RateClass) -> RateLimit {
        RateLimit { class, by: "network", rate: self.rates_of(class).network }
    }

    pub(super) fn tenant(&self, class: RateClass) -> RateLimit {
        RateLimit { class, by: "tenant", rate: self.rates_of(class).tenant }
    }

    /// The limit of mails to one account. The rate is fixed and not a setting, so that nobody can
    /// ever fill a user's mailbox with mails.
    pub(super) fn account() -> RateLimit {
        let rate = NonZeroU32::new(3).map(|calls| Rate { calls, per: Duration::from_mins(15) });
        RateLimit { class: RateClass::PasswordReset, by: "account", rate }
    }

    /// The limit of mails to one address in all tenants together. The limit is needed because an
    /// attacker can use the same address in many tenants.
    pub(super) fn mailbox() -> RateLimit {
        let rate = NonZeroU32::new(10).map(|calls| Rate { calls, per: Duration::from_mins(15) });
        RateLimit { class: RateClass::PasswordReset, by: "mailbox", rate }
    }
}

impl RateLimit {
    /// The key of a counter in Redis. `name` is the name of a network, a tenant or a mailbox, or
    /// has the form `<tenant>/<part of the tenant>`. The braces are a hash tag, which puts all keys
    /// of a tenant into one slot of a Redis cluster.
    pub(super) fn key(&self, name: &str) -> String {
        let class = self.class.name();
        match name.split_once('/') {
            Some((tenant, rest)) => format!("rate:{{{tenant}}}:{class}:{rest}"),
            None => format!("rate:{{{name}}}:{class}"),
        }
    }
}

impl FromStr for ClassRates {
    type Err = String;

    /// Parses `<network rate>,<tenant rate>`. A rate is `<calls>/<time>` or `off`. `off` alone
    /// turns both rates off.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let expected_format = || {
            let text = "must be <network rate>,<tenant rate>, like 600/1m,6000/1m; or off";
            text.to_owned()
        };
        let (network, tenant) = text.split_once(',').ok_or_else(expected_format)?;
        let parse = |text: &str| match text.trim() {
            "off" => Ok(None),
            text => parse_rate(text).map(Some).ok_or_else(expected_format),
        };
        Ok(Self { network: parse(network)?, tenant: parse(tenant)? })
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    const MAX_PERIOD: Duration = Duration::from_hours(24);
    let (calls, per) = text.split_once('/')?;
    let per = humantime::parse_duration(per).ok().filter(|per| *per <= MAX_PERIOD)?;
    let rate = Rate { calls: calls.parse().ok()?, per };
    // A shorter interval would have the effect of no limit, which the value `off` expresses.
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
        let parse = |text: &str| text.parse::<ClassRates>().ok();
        let both = ClassRates { network: rate(600, 60), tenant: rate(5, 1) };
        assert_eq!(parse("600/1m,5/1s"), Some(both));
        assert_eq!(parse("600/1m, off"), Some(ClassRates { tenant: None, ..both }));
        assert_eq!(parse("off"), Some(ClassRates::default()));
        // `1/2d` has too long a period. `9999999/1s` has an interval below one microsecond.
        for bad in ["", "600/1m", "0/1m,off", "600,5", "-1/1m,off", "1/2d,off", "9999999/1s,off"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
