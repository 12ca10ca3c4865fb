//! Guesses: who gives wrong passwords of an account waits, longer each time.
//!
//! It is counted for each account from each network, so that nobody can lock out the
//! owner, who comes from another (SP 800-63B-4, 3.2.2; ASVS 6.3.1). Against guesses
//! from many networks they are counted together as well, with a higher bound; what
//! follows from it spares the networks where the owner signed in before.
//!
//! A guess counts when it begins: many at once are no more than one after the other.
//!
//! Guesses that do not name the account's tenant are counted apart. They see what the
//! others have counted, and never the other way round: the answer to a guess that names a
//! tenant would tell whether a guess that names none was at its account.

use std::{net::IpAddr, time::Duration};

use super::{Limits, names::Names};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// The failures from one network that cost nothing; the next one waits.
const FREE: u64 = 10;

/// The failures from everywhere that cost nothing (SP 800-63B-4: 100 at most).
const FREE_EVERYWHERE: u64 = 100;

/// Guesses in flight beyond the free failures, from one network, at most: an owner with many
/// devices, or a program.
const MAX_IN_FLIGHT: u64 = 50;

/// How long a guess that did not end counts as in flight.
const IN_FLIGHT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first wait; each further one is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// The longest wait: nothing is locked for good.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// How long failures are remembered after the last one.
const REMEMBERED: Duration = Duration::from_hours(24);

/// How long it is remembered where the owner signed in.
const KNOWN: Duration = Duration::from_hours(30 * 24);

/// A guess under way.
#[must_use]
pub struct Guess {
    limits: Limits,
    keys: Vec<String>,
}

impl Limits {
    /// Begins a guess at the password of an account, whether it exists or not.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time to wait.
    pub async fn guess(
        &self,
        tenant: TenantId,
        email_key: &str,
        ip: Option<IpAddr>,
    ) -> Result<Guess> {
        let name = Names::tenant(tenant);
        let account = self.0.names.account(&name, email_key);
        self.begin_guess(tenant, Counted::of(&name, account, &self.network_name(ip)), None).await
    }

    /// Begins a guess at the password of an account whose tenant was not named.
    ///
    /// # Errors
    /// `RATE_LIMITED`, also where a guess that names the tenant would have to wait.
    pub async fn guess_unnamed(
        &self,
        tenant: TenantId,
        email_key: &str,
        ip: Option<IpAddr>,
    ) -> Result<Guess> {
        let name = Names::tenant(tenant);
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
        // Whatever Redis says.
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

    /// It was right.
    pub async fn right(self) {
        let told = self.limits.0.redis.right(self.keys, KNOWN).await;
        told.unwrap_or_else(|error| tracing::debug!(%error, "a sign-in was not counted"));
    }

    /// It was wrong.
    pub async fn wrong(self) {
        self.count(1).await;
    }

    /// Nobody knows what it was.
    pub async fn abandoned(self) {
        self.count(0).await;
    }

    async fn count(self, wrong: u64) {
        let arguments = vec![
            FREE,
            FREE_EVERYWHERE,
            millis(FIRST_WAIT),
            millis(LONGEST_WAIT),
            REMEMBERED.as_secs(),
            wrong,
        ];
        let told = self.limits.0.redis.wrong(self.keys, arguments).await;
        told.unwrap_or_else(|error| tracing::debug!(%error, "a failure was not counted"));
    }
}

/// What guesses at an account from a network are counted under.
struct Counted {
    /// Its name where one replica counts alone.
    name: String,
    /// In Redis: the failures from the network and from everywhere, the guesses under way,
    /// and whether the owner was there.
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
