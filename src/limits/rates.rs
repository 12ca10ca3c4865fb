//! Rates: what is limited, and how much.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use crate::proto::v1::Limit;

/// What methods that are limited together have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A password is compared.
    SignIn,
    /// A user is made without anybody's permission.
    Registration,
    /// A refresh token is verified.
    Refresh,
    /// A token of somebody's is looked at.
    Introspection,
    /// A mail is sent to somebody, or what was in it is tried.
    PasswordReset,
    /// An API key is looked at.
    ApiKey,
}

/// So many calls in a time. As many may come at once; each makes room again after its
/// part of the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many.
    pub calls: NonZeroU32,
    /// In which time.
    pub per: Duration,
}

/// The rates of all classes; `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Of sign-ins.
    pub sign_in: Pair,
    /// Of registrations.
    pub registration: Pair,
    /// Of refreshes.
    pub refresh: Pair,
    /// Of introspections.
    pub introspection: Pair,
    /// Of password resets.
    pub password_reset: Pair,
    /// Of API keys.
    pub api_key: Pair,
}

/// A class's two rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    /// From one network.
    pub network: Option<Rate>,
    /// For one tenant.
    pub tenant: Option<Rate>,
}

/// What is counted.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) class: Class,
    /// Whose calls are counted together: `network`, `tenant`, `account` or `mailbox`.
    pub(super) by: &'static str,
    pub(super) rate: Option<Rate>,
}

impl Class {
    pub(super) const ALL: [Self; 6] = [
        Self::SignIn,
        Self::Registration,
        Self::Refresh,
        Self::Introspection,
        Self::PasswordReset,
        Self::ApiKey,
    ];

    /// The class that a policy names; `None` for none.
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

    /// Its name, in keys and metrics.
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

    /// Whether a public method's calls are counted before their message is read. Of an API
    /// key the message tells whether it costs anything: the operation counts it.
    #[must_use]
    pub fn counts_by_metadata(self) -> bool {
        self != Self::ApiKey
    }

    /// Whether the replicas count together. Introspection and refresh are limited for what
    /// they cost a replica, not against guesses: their tokens are signed. Introspection is
    /// asked for with every request that some service gets, and is answered from memory;
    /// two round trips to Redis would be a tenth of a refresh.
    pub(super) fn is_shared(self) -> bool {
        !matches!(self, Self::Introspection | Self::Refresh)
    }
}

impl Rates {
    fn pair(&self, class: Class) -> Pair {
        match class {
            Class::SignIn => self.sign_in,
            Class::Registration => self.registration,
            Class::Refresh => self.refresh,
            Class::Introspection => self.introspection,
            Class::PasswordReset => self.password_reset,
            Class::ApiKey => self.api_key,
        }
    }

    pub(super) fn network(&self, class: Class) -> Rule {
        Rule { class, by: "network", rate: self.pair(class).network }
    }

    pub(super) fn tenant(&self, class: Class) -> Rule {
        Rule { class, by: "tenant", rate: self.pair(class).tenant }
    }

    /// Of mails to one account, whatever the settings say: nobody's mailbox is to be
    /// filled.
    pub(super) fn account() -> Rule {
        let rate = NonZeroU32::new(3).map(|calls| Rate { calls, per: Duration::from_mins(15) });
        Rule { class: Class::PasswordReset, by: "account", rate }
    }

    /// The same of mails to one address, in all tenants together: anybody may found tenants
    /// with it.
    pub(super) fn mailbox() -> Rule {
        let rate = NonZeroU32::new(10).map(|calls| Rate { calls, per: Duration::from_mins(15) });
        Rule { class: Class::PasswordReset, by: "mailbox", rate }
    }
}

impl Rule {
    /// The key in Redis. The braces are a hash tag: all of a tenant's keys are in one
    /// slot of a cluster.
    pub(super) fn key(&self, name: &str) -> String {
        let class = self.class.name();
        match name.split_once('/') {
            Some((tenant, of_it)) => format!("rate:{{{tenant}}}:{class}:{of_it}"),
            None => format!("rate:{{{name}}}:{class}"),
        }
    }
}

impl FromStr for Pair {
    type Err = String;

    /// Reads `<rate>,<rate>`, from one network and for one tenant; a rate is
    /// `<calls>/<time>` or `off`, and `off` alone is both.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let wanted = || "must be two rates like 600/1m,6000/1m, or off".to_owned();
        let (network, tenant) = text.split_once(',').ok_or_else(wanted)?;
        let read = |text: &str| match text.trim() {
            "off" => Ok(None),
            text => rate(text).map(Some).ok_or_else(wanted),
        };
        Ok(Self { network: read(network)?, tenant: read(tenant)? })
    }
}

fn rate(text: &str) -> Option<Rate> {
    const LONGEST: Duration = Duration::from_hours(24);
    let (calls, per) = text.split_once('/')?;
    let per = humantime::parse_duration(per).ok().filter(|per| *per <= LONGEST)?;
    let rate = Rate { calls: calls.parse().ok()?, per };
    // Less is no limit, and there is a word for that.
    (rate.interval() >= Duration::from_micros(1)).then_some(rate)
}

impl Rate {
    /// The time after which one call makes room again.
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
    fn rates_are_read_or_refused() {
        let read = |text: &str| text.parse::<Pair>().ok();
        let both = Pair { network: rate(600, 60), tenant: rate(5, 1) };
        assert_eq!(read("600/1m,5/1s"), Some(both));
        assert_eq!(read("600/1m, off"), Some(Pair { tenant: None, ..both }));
        assert_eq!(read("off"), Some(Pair::default()));
        for bad in ["", "600/1m", "0/1m,off", "600,5", "-1/1m,off", "1/2d,off", "9999999/1s,off"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
