//! Limits guesses of passwords: after wrong passwords for an account, each further guess has to
//! wait, longer each time.
//!
//! Failures are counted per account and network. So nobody can lock out the owner, who signs in
//! from another network (SP 800-63B-4, section 3.2.2; ASVS 6.3.1). Against guesses from many
//! networks, all failures of an account are also counted together, with a higher limit. The
//! wait for this limit does not apply to networks where the owner signed in before.
//!
//! A guess counts when it begins, so concurrent guesses gain nothing over sequential ones.
//!
//! Guesses that do not name the account's tenant are counted separately. They also wait for the
//! failures of guesses that name it, but not the other way round. Otherwise the answer to a
//! guess that names a tenant would show whether guesses without a tenant tried its account.
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

/// Number of failures from one network without a wait. The next guess has to wait.
const FREE: u64 = 10;

/// Number of failures from all networks without a wait (SP 800-63B-4 allows 100 at most).
const FREE_EVERYWHERE: u64 = 100;

/// Maximum number of guesses in flight from one network, in addition to the failures without a
/// wait. It allows for an owner with many devices, or a program.
const MAX_IN_FLIGHT: u64 = 50;

/// Time after which a guess that did not end no longer counts as in flight.
const IN_FLIGHT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first wait. Each further wait is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// Maximum wait. No account is locked permanently.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Time that failures are kept after the last failure.
const FAILURE_RETENTION: Duration = Duration::from_hours(24);

/// Time that a network is kept as one where the owner signed in.
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
        self.begin_guess(tenant, Counted::of(&name, account, &self.network_name(ip)), None).await
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
        let counted = |account| Counted::of(&name, account, &self.network_name(ip));
        let named = counted(self.0.names.account(&name, email_key));
        let unnamed = counted(self.0.names.account(&format!("{name} unnamed"), email_key));
        self.begin_guess(tenant, unnamed, Some(&named)).await
    }

    fn network_name(&self, ip: Option<IpAddr>) -> String {
        ip.map(|ip| self.0.names.network(ip)).unwrap_or_default()
    }

    async fn begin_guess(
        &self,
        tenant: TenantId,
        own: Counted,
        others: Option<&Counted>,
    ) -> Result<Guess> {
        let mut keys = own.keys.to_vec();
        if let Some(Counted { keys: [here, everywhere, _, known], .. }) = others {
            keys.extend([here, everywhere, known].map(Clone::clone));
        }
        let arguments = vec![FREE, MAX_IN_FLIGHT, millis(IN_FLIGHT_TIMEOUT), millis(LONGEST_WAIT)];
        let shared = self.0.redis.guess(keys, arguments).await;
        let wait = shared.unwrap_or_else(|_| {
            self.0.metrics.counted_alone();
            self.0.local.guess(&own.name)
        });
        // Bounds the wait, whatever Redis answers.
        let wait = wait.min(LONGEST_WAIT);
        let judged = self.judge(wait, "guess", "account");
        judged.inspect_err(|_| self.0.trail.limited(tenant, "guess", "account"))?;
        Ok(Guess { limits: self.clone(), keys: own.keys.to_vec() })
    }
}

impl Guess {
    /// Ends the guess by the error of its attempt; `None` is a right password.
    pub async fn end(self, error: Option<&Error>) {
        match error.map(Error::reason) {
            None => self.right().await,
            // A cancelled attempt may have been right, and counts like a wrong one.
            Some(ErrorReason::InvalidCredentials | ErrorReason::Cancelled) => self.wrong().await,
            Some(_) => self.abandoned().await,
        }
    }

    /// Ends the guess: the password was right.
    pub async fn right(self) {
        let sent = self.limits.0.redis.right(self.keys, KNOWN_NETWORK_RETENTION).await;
        sent.unwrap_or_else(|error| tracing::debug!(%error, "a sign-in was not counted"));
    }

    /// Ends the guess: the password was wrong.
    pub async fn wrong(self) {
        self.count(1).await;
    }

    /// Ends the guess without a result: it counts neither as right nor as wrong.
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
        let sent = self.limits.0.redis.wrong(self.keys, arguments).await;
        sent.unwrap_or_else(|error| tracing::debug!(%error, "a failure was not counted"));
    }
}

/// The keys that count guesses at an account from a network.
struct Counted {
    /// The name in this replica's memory, for when Redis is unavailable.
    name: String,
    /// Redis keys: failures from the network, failures from all networks, guesses in flight,
    /// and the mark that the owner signed in from the network.
    keys: [String; 4],
}

impl Counted {
    fn of(tenant: &str, account: String, network: &str) -> Self {
        let key = |what: &str| format!("guess:{{{tenant}}}:{account}:{what}");
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
