//! Limits guesses of passwords: after wrong passwords for an account, each further guess has to
//! wait. The wait gets longer each time.
//!
//! Failures are counted per account and network. So an attacker cannot lock out the owner, who
//! signs in from another network (SP 800-63B-4, section 3.2.2; ASVS 6.3.1). Against guesses from
//! many networks, all failures of an account are also counted together, with a higher limit. The
//! wait for this limit does not apply to networks where the owner signed in before.
//!
//! A guess is counted when it begins, so concurrent guesses have no advantage over sequential
//! guesses.
//!
//! Guesses that do not name the account's tenant are counted separately. These guesses also wait
//! for the failures of guesses that name the tenant. Guesses that name the tenant do not wait for
//! the failures of guesses without a tenant. Otherwise the response to a guess that names a tenant
//! would reveal whether guesses without a tenant tried the account.
//!
//! - Rule: `guess.lua` (`src/limits/guess.lua`) decides whether a guess may begin, or how long it
//!   must wait. The numbers are the constants below.
//! - Rule: `wrong.lua` (`src/limits/wrong.lua`) counts a wrong guess, and decides the next wait.

use std::{net::IpAddr, time::Duration};

use super::{Limits, names::CounterNames};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// Number of failures from one network that cause no wait. The next guess has to wait.
const FREE: u64 = 10;

/// Number of failures from all networks that cause no wait (SP 800-63B-4 allows 100 at most).
const FREE_EVERYWHERE: u64 = 100;

/// Maximum number of guesses in flight from one network, in addition to the failures without a
/// wait. An owner with many devices or with a program stays below this number.
const MAX_IN_FLIGHT: u64 = 50;

/// Time after which a guess that did not end is no longer counted as in flight.
const IN_FLIGHT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first wait. Each further wait is twice as long as the previous wait.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// Maximum wait. No account is locked permanently.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Retention of the failures, from the last failure on.
const FAILURE_RETENTION: Duration = Duration::from_hours(24);

/// Retention of the mark that the owner signed in from a network.
const KNOWN_NETWORK_RETENTION: Duration = Duration::from_hours(30 * 24);

/// A guess in flight.
#[must_use]
pub struct Guess {
    limits: Limits,
    keys: Vec<String>,
}

impl Limits {
    /// Begins a guess at the password of an account, whether the account exists or not.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time to wait.
    pub async fn guess(
        &self,
        tenant: TenantId,
        email_key: &str,
        ip: Option<IpAddr>,
    ) -> Result<Guess> {
        let name = CounterNames::tenant(tenant);
        let account = self.0.names.account(&name, email_key);
        self.begin_guess(tenant, GuessCounter::of(&name, account, &self.network_name(ip)), None)
            .await
    }

    /// Begins a guess at the password of an account whose tenant the call did not name.
    ///
    /// # Errors
    /// `RATE_LIMITED`, also when a guess that names the tenant would have to wait.
    pub async fn guess_without_tenant(
        &self,
        tenant: TenantId,
        email_key: &str,
        ip: Option<IpAddr>,
    ) -> Result<Guess> {
        let name = CounterNames::tenant(tenant);
        let counter = |account| GuessCounter::of(&name, account, &self.network_name(ip));
        let with_tenant = counter(self.0.names.account(&name, email_key));
        let without_tenant = counter(self.0.names.account(&format!("{name} unnamed"), email_key));
        self.begin_guess(tenant, without_tenant, Some(&with_tenant)).await
    }

    fn network_name(&self, ip: Option<IpAddr>) -> String {
        ip.map(|ip| self.0.names.network(ip)).unwrap_or_default()
    }

    async fn begin_guess(
        &self,
        tenant: TenantId,
        own: GuessCounter,
        other_counter: Option<&GuessCounter>,
    ) -> Result<Guess> {
        let mut keys = own.keys.to_vec();
        if let Some(GuessCounter { keys: [here, everywhere, _, known], .. }) = other_counter {
            keys.extend([here, everywhere, known].map(Clone::clone));
        }
        let arguments = vec![FREE, MAX_IN_FLIGHT, millis(IN_FLIGHT_TIMEOUT), millis(LONGEST_WAIT)];
        let redis_wait = self.0.redis.guess(keys, arguments).await;
        let wait = redis_wait.unwrap_or_else(|_| {
            self.0.metrics.counted_alone();
            self.0.local.guess(&own.name)
        });
        // Bounds the wait in case Redis returns a wrong value.
        let wait = wait.min(LONGEST_WAIT);
        let result = self.judge(wait, "guess", "account");
        result.inspect_err(|_| self.0.trail.limited(tenant, "guess", "account"))?;
        Ok(Guess { limits: self.clone(), keys: own.keys.to_vec() })
    }
}

impl Guess {
    /// Ends the guess with the error of its attempt; `None` means that the password matched.
    pub async fn end(self, error: Option<&Error>) {
        match error.map(Error::reason) {
            None => self.right().await,
            // A cancelled attempt is counted like a wrong password, because its result is unknown.
            Some(ErrorReason::InvalidCredentials | ErrorReason::Cancelled) => self.wrong().await,
            Some(_) => self.abandoned().await,
        }
    }

    /// Ends the guess: the password matched.
    pub async fn right(self) {
        let result = self.limits.0.redis.right(self.keys, KNOWN_NETWORK_RETENTION).await;
        result.unwrap_or_else(|error| tracing::debug!(%error, "a sign-in was not counted"));
    }

    /// Ends the guess: the password did not match.
    pub async fn wrong(self) {
        self.count(1).await;
    }

    /// Ends the guess without a result: neither a success nor a failure is counted.
    pub async fn abandoned(self) {
        self.count(0).await;
    }

    async fn count(self, wrong: u64) {
        let arguments = vec![
            FREE,
            FREE_EVERYWHERE,
            millis(FIRST_WAIT),
            millis(LONGEST_WAIT),
            FAILURE_RETENTION.as_secs(),
            wrong,
        ];
        let result = self.limits.0.redis.wrong(self.keys, arguments).await;
        result.unwrap_or_else(|error| tracing::debug!(%error, "a failure was not counted"));
    }
}

/// The keys that count guesses at an account from a network.
struct GuessCounter {
    /// The key in this replica's memory, used while Redis is unavailable.
    name: String,
    /// Redis keys: failures from the network, failures from all networks, guesses in flight,
    /// and the mark that the owner signed in from the network.
    keys: [String; 4],
}

impl GuessCounter {
    fn of(tenant: &str, account: String, network: &str) -> Self {
        let key = |suffix: &str| format!("guess:{{{tenant}}}:{account}:{suffix}");
        let keys = [
            key(&format!("here:{network}")),
            key("everywhere"),
            key(&format!("underway:{network}")),
            key(&format!("known:{network}")),
        ];
        Self { name: account + network, keys }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
