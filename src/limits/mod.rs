//! Limits: how often somebody may ask for what costs much or is worth guessing.
//!
//! Two rules, apart from each other:
//!
//! - **Rates** (`rates.rs`): so many calls of a class in a time, from one network and
//!   for one tenant. The proto says which class a method is of; the gate asks for the
//!   network, the operation for the tenant as soon as it knows it.
//! - **Guesses** (`guesses.rs`): wrong passwords of one account make those who tried
//!   them wait, longer each time, and nobody else.
//!
//! Both are counted in Redis, for all replicas together (`redis_limiter.rs`). While Redis is
//! away each replica counts alone (`local.rs`), and the limits hold for each.
//!
//! What is refused for a tenant is counted for its audit trail ([`Refusals::limited`]).

mod guesses;
mod local;
mod metrics;
mod names;
mod owner;
mod proxies;
mod rates;
mod redis_limiter;

use std::{net::IpAddr, sync::Arc, time::Duration};

use opentelemetry::context::FutureExt;
use prometheus_client::registry::Registry;

pub use guesses::Guess;
pub use names::{Names, network};
pub use owner::Owner;
pub use proxies::TrustedProxies;
pub use rates::{Class, Rate, Rates};

use local::LocalLimiter;
use metrics::Metrics;
use rates::Rule;
use redis_limiter::RedisLimiter;

use crate::{
    audit::Refusals,
    error::{Error, Result},
    ids::TenantId,
    redis::Redis,
};

/// Counts, and refuses what is too much. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    rates: Rates,
    names: Arc<Names>,
    redis: RedisLimiter,
    local: LocalLimiter,
    metrics: Metrics,
    trail: Arc<Refusals>,
}

impl Limits {
    /// Limits that are counted in this Redis.
    #[must_use]
    pub fn new(
        rates: &Rates,
        names: Arc<Names>,
        redis: Redis,
        trail: Arc<Refusals>,
        registry: &mut Registry,
    ) -> Self {
        Self(Arc::new(Inner {
            local: LocalLimiter::new(rates),
            rates: *rates,
            names,
            redis: RedisLimiter::new(redis),
            metrics: Metrics::register(registry),
            trail,
        }))
    }

    /// Takes a call of this class from this address into account.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time after which there is room again.
    pub async fn network(&self, class: Class, ip: Option<IpAddr>) -> Result<()> {
        let Some(ip) = ip else { return Ok(()) };
        let name = self.0.names.network(ip);
        self.take(self.0.rates.network(class), &name).await
    }

    /// Takes a call of this class for this tenant into account.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time after which there is room again.
    pub async fn tenant(&self, class: Class, tenant: TenantId) -> Result<()> {
        self.take_of(tenant, self.0.rates.tenant(class), &Names::tenant(tenant)).await
    }

    /// The same for a call that did not name the tenant: counted apart, for a call that
    /// names it must not show that others were for it.
    ///
    /// # Errors
    /// `RATE_LIMITED`. Who asked must not hear of it.
    pub async fn tenant_unnamed(&self, class: Class, tenant: TenantId) -> Result<()> {
        let name = format!("{}/unnamed", Names::tenant(tenant));
        self.take_of(tenant, self.0.rates.tenant(class), &name).await
    }

    /// What stands for a tenant that does not exist, by the id or slug that it was named
    /// by: it is counted apart from others, as one that exists would be.
    #[must_use]
    pub fn stand_in(&self, named: &str) -> TenantId {
        self.0.names.stand_in(named)
    }

    /// What stands for the tenant of a call from this address that names none.
    #[must_use]
    pub fn stand_in_of_network(&self, ip: Option<IpAddr>) -> TenantId {
        self.0.names.stand_in_of_network(ip)
    }

    /// Takes a mail to this account into account, whether the account exists or not, and to
    /// this address in all tenants together.
    ///
    /// # Errors
    /// `RATE_LIMITED`: its owner has enough mails. Who asked must not hear of it.
    pub async fn mail(&self, tenant: TenantId, email_key: &str) -> Result<()> {
        self.mail_to_verified(tenant, email_key).await?;
        // Not in the tenant's trail: it would tell of the address in other tenants.
        self.take(Rates::mailbox(), &self.0.names.mailbox(email_key)).await
    }

    /// The same of an address that the account's owner has proved: what others, who have not,
    /// have sent there does not count.
    ///
    /// # Errors
    /// `RATE_LIMITED`, likewise.
    pub async fn mail_to_verified(&self, tenant: TenantId, email_key: &str) -> Result<()> {
        let name = Names::tenant(tenant);
        let account = self.0.names.account(&name, email_key);
        self.take_of(tenant, Rates::account(), &format!("{name}/{account}")).await
    }

    /// Takes what is counted for a tenant; its trail has what is refused.
    async fn take_of(&self, tenant: TenantId, rule: Rule, name: &str) -> Result<()> {
        let taken = self.take(rule, name).await;
        taken.inspect_err(|_| self.0.trail.limited(tenant, rule.class.name(), rule.by))
    }

    async fn take(&self, rule: Rule, name: &str) -> Result<()> {
        let Some(rate) = rule.rate else { return Ok(()) };
        let shared = if rule.class.is_shared() {
            let (limits, key) = (self.0.clone(), rule.key(name));
            // In a task of its own: a call that is given up counts all the same.
            let taking = async move { limits.redis.take(&key, rate).await };
            let taken = tokio::spawn(taking.with_current_context()).await.ok().and_then(Result::ok);
            if taken.is_none() {
                self.0.metrics.counted_alone();
            }
            taken
        } else {
            None
        };
        let wait = shared.unwrap_or_else(|| self.0.local.take(&rule, name));
        self.judge(wait, rule.class.name(), rule.by)
    }

    fn judge(&self, wait: Duration, class: &'static str, by: &'static str) -> Result<()> {
        if wait.is_zero() {
            return Ok(());
        }
        self.0.metrics.refused(class, by);
        Err(Error::RateLimited(wait))
    }
}
