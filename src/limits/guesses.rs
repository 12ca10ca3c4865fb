//! Limits guesses of passwords: after too many wrong passwords for an account, each further guess
//! has to wait. The wait gets longer each time.
//!
//! Failures are counted per account and network. So an attacker cannot lock out the owner, who
//! signs in from another network (SP 800-63B-4, section 3.2.2; ASVS 6.3.1). Against guesses from
//! many networks, all failures of an account are also counted together, with a higher limit. The
//! wait for this limit does not apply to networks from which the owner signed in before.
//!
//! A guess is counted as in flight when it begins, and the number of guesses in flight is bounded.
//! So concurrent guesses have no advantage over sequential guesses.
//!
//! Guesses that do not name the account's tenant are counted separately. These guesses also wait
//! after failures of guesses that name the tenant. Guesses that name the tenant do not wait after
//! failures of guesses without a tenant. Otherwise the response to a guess that names a tenant
//! would reveal whether guesses without a tenant tried the account.
//!
//! While Redis is unavailable, `local_guesses.rs` limits the guesses in the memory of this replica,
//! with shorter waits.
//!
//! - Rule: `begin_guess.lua` (`src/limits/begin_guess.lua`) decides whether a guess may begin, or
//!   how long the guess must wait. The constants of this file are the arguments of the scripts.
//! - Rule: `guess_failed.lua` (`src/limits/guess_failed.lua`) counts a wrong guess, and decides the
//!   next wait.

use std::{net::IpAddr, time::Duration};

use super::{Limits, local_guesses::GuessInFlight, names::CounterNames};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// Number of failures from one network after which the next guess has to wait.
const FREE_FAILURES: u64 = 10;

/// Number of failures from all networks after which the next guess has to wait (SP 800-63B-4 allows
/// 100 at most).
const FREE_FAILURES_OF_ALL_NETWORKS: u64 = 100;

/// Part of the maximum number of guesses in flight from one network. The maximum is this number
/// plus the number of failures that are still free. An owner with many devices or with a program
/// stays below this number.
const EXTRA_IN_FLIGHT: u64 = 50;

/// Time after which guesses that did not end are no longer counted as in flight. The time begins
/// again with each guess from the network.
const IN_FLIGHT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first wait. Each further wait is twice as long as the previous wait.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// Maximum wait. No account is locked permanently.
const MAX_WAIT: Duration = Duration::from_hours(1);

/// Retention of the counted failures, from the last failure on.
const FAILURE_RETENTION: Duration = Duration::from_hours(24);

/// Retention of the mark that the owner signed in from a network.
const KNOWN_NETWORK_RETENTION: Duration = Duration::from_hours(30 * 24);

/// A guess in flight.
#[must_use]
pub struct Guess {
    limits: Limits,
    counter: GuessCounter,
    /// The guess in this replica's memory; `None` when the guess began in Redis. A drop of this
    /// value ends the guess.
    _in_flight: Option<GuessInFlight>,
}

impl Limits {
    /// Begins a guess at the password of an account, whether the account exists or not.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time to wait.
    pub async fn guess(
        &self,
        tenant: TenantId,
        normalized_email: &str,
        ip: Option<IpAddr>,
    ) -> Result<Guess> {
        let name = CounterNames::tenant(tenant);
        let account = self.0.names.account(&name, normalized_email);
        self.begin_guess(tenant, GuessCounter::new(&name, account, &self.network_name(ip)), None)
            .await
    }

    /// Begins a guess at the password of an account whose tenant the call did not name. A refusal
    /// is not counted for the tenant's audit trail: it would reveal to the tenant that the owner of
    /// the email signs in to another tenant.
    ///
    /// # Errors
    /// `RATE_LIMITED`, also when a guess that names the tenant would have to wait.
    pub async fn guess_without_tenant(
        &self,
        tenant: TenantId,
        normalized_email: &str,
        ip: Option<IpAddr>,
    ) -> Result<Guess> {
        let name = CounterNames::tenant(tenant);
        let counter = |account| GuessCounter::new(&name, account, &self.network_name(ip));
        let with_tenant = counter(self.0.names.account(&name, normalized_email));
        let without_tenant =
            counter(self.0.names.account(&format!("{name} unnamed"), normalized_email));
        self.begin_guess(TenantId::UNKNOWN, without_tenant, Some(&with_tenant)).await
    }

    /// The name of the address's network; empty for a call without an address.
    fn network_name(&self, ip: Option<IpAddr>) -> String {
        ip.map(|ip| self.0.names.network(ip)).unwrap_or_default()
    }

    /// Begins a guess that is counted by `counter`. A refusal is counted for the audit trail of
    /// `audited_tenant`, and for no trail if this is [`TenantId::UNKNOWN`]. If the guess does not
    /// name the tenant, `counter_with_tenant` is the counter of the guesses that name the tenant,
    /// because a guess also waits after their failures.
    async fn begin_guess(
        &self,
        audited_tenant: TenantId,
        counter: GuessCounter,
        counter_with_tenant: Option<&GuessCounter>,
    ) -> Result<Guess> {
        let mut keys = counter.redis_keys.to_vec();
        if let Some(GuessCounter { redis_keys: [network, all_networks, _, known], .. }) =
            counter_with_tenant
        {
            keys.extend([network, all_networks, known].map(Clone::clone));
        }
        let arguments =
            vec![FREE_FAILURES, EXTRA_IN_FLIGHT, millis(IN_FLIGHT_TIMEOUT), millis(MAX_WAIT)];
        let redis_wait = self.0.redis.begin_guess(keys, arguments).await;
        let (wait, in_flight) = if let Ok(wait) = redis_wait {
            (wait, None)
        } else {
            self.0.metrics.record_counted_alone();
            match self.0.local.guesses.begin(&counter.local_key) {
                Ok(guess) => (Duration::ZERO, Some(guess)),
                Err(wait) => (wait, None),
            }
        };
        // Bounds the wait in case Redis returns a wrong value.
        let wait = wait.min(MAX_WAIT);
        let result = self.check_wait(wait, "guess", "account");
        result.inspect_err(|_| {
            self.0.refusals.record_rate_limit(audited_tenant, "guess", "account");
        })?;
        Ok(Guess { limits: self.clone(), counter, _in_flight: in_flight })
    }
}

impl Guess {
    /// Ends the guess with the error of the sign-in; `None` means that the password matched.
    pub async fn end(self, error: Option<&Error>) {
        match error.map(Error::reason) {
            None => self.record_success().await,
            // A cancelled attempt is counted like a wrong password, because its result is unknown.
            Some(ErrorReason::InvalidCredentials | ErrorReason::Cancelled) => {
                self.record_failure().await;
            }
            Some(_) => self.release().await,
        }
    }

    /// Ends the guess: the password matched.
    pub async fn record_success(self) {
        let inner = &self.limits.0;
        inner.local.guesses.record_success(&self.counter.local_key);
        let keys = self.counter.redis_keys.to_vec();
        let result = inner.redis.guess_succeeded(keys, KNOWN_NETWORK_RETENTION).await;
        result.unwrap_or_else(|error| tracing::debug!(%error, "a right guess was not recorded"));
    }

    /// Ends the guess: the password did not match.
    pub async fn record_failure(self) {
        self.end_with_failures(1).await;
    }

    /// Ends the guess without a result: neither a success nor a failure is counted.
    pub async fn release(self) {
        self.end_with_failures(0).await;
    }

    /// Ends the guess, and counts this number of failures: 0 or 1.
    async fn end_with_failures(self, failures: u64) {
        let arguments = vec![
            FREE_FAILURES,
            FREE_FAILURES_OF_ALL_NETWORKS,
            millis(FIRST_WAIT),
            millis(MAX_WAIT),
            FAILURE_RETENTION.as_secs(),
            failures,
        ];
        let inner = &self.limits.0;
        let keys = self.counter.redis_keys.to_vec();
        if let Err(error) = inner.redis.guess_failed(keys, arguments).await {
            tracing::debug!(%error, "a guess was not ended in Redis");
            if failures > 0 {
                inner.local.guesses.record_failure(&self.counter.local_key);
            }
        }
    }
}

/// The keys of the counters for guesses at one account from one network.
struct GuessCounter {
    /// The key in this replica's memory, used while Redis is unavailable.
    local_key: String,
    /// Redis keys: failures from the network, failures from all networks, guesses in flight from
    /// the network, and the mark that the owner signed in from the network.
    redis_keys: [String; 4],
}

impl GuessCounter {
    fn new(tenant: &str, account: String, network: &str) -> Self {
        let key = |suffix: &str| format!("guess:{{{tenant}}}:{account}:{suffix}");
        let redis_keys = [
            key(&format!("here:{network}")),
            key("everywhere"),
            key(&format!("underway:{network}")),
            key(&format!("known:{network}")),
        ];
        Self { local_key: account + network, redis_keys }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
