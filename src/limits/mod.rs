//! Rate limits for calls that are expensive or that can guess a secret.
//!
//! Two independent rules:
//!
//! - **Rates** (`rates.rs`): a maximum number of calls of a class in a time, from one network
//!   and for one tenant. The proto declares each method's class. The gate counts the call for
//!   its network. The operation counts the call for the tenant as soon as the tenant is known.
//! - **Guesses** (`guesses.rs`): after wrong passwords for an account, the network that sent these
//!   passwords has to wait. The wait gets longer each time. Other networks do not wait.
//!
//! Redis counts rates and guesses for all replicas together (`redis_limiter.rs`). While Redis is
//! unavailable each replica counts alone (`local.rs`), and the limits apply to each replica.
//!
//! Refusals for a tenant are counted for the tenant's audit trail ([`Refusals::limited`]).

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
pub use names::{CounterNames, network};
pub use owner::Owner;
pub use proxies::TrustedProxies;
pub use rates::{Rate, RateClass, Rates};

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

/// Counts calls and refuses the calls above a limit. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    rates: Rates,
    names: Arc<CounterNames>,
    redis: RedisLimiter,
    local: LocalLimiter,
    metrics: Metrics,
    trail: Arc<Refusals>,
}

impl Limits {
    /// Creates limits that are counted in this Redis.
    #[must_use]
    pub fn new(
        rates: &Rates,
        names: Arc<CounterNames>,
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

    /// Counts a call of this class from this address.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next call is allowed.
    pub async fn network(&self, class: RateClass, ip: Option<IpAddr>) -> Result<()> {
        let Some(ip) = ip else { return Ok(()) };
        let name = self.0.names.network(ip);
        self.take(self.0.rates.network(class), &name).await
    }

    /// Counts a call of this class for this tenant.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next call is allowed.
    pub async fn tenant(&self, class: RateClass, tenant: TenantId) -> Result<()> {
        self.take_for_tenant(tenant, self.0.rates.tenant(class), &CounterNames::tenant(tenant))
            .await
    }

    /// Counts a call that did not name this tenant. Such calls are counted separately.
    /// Otherwise the response to a call that names the tenant would reveal that other calls looked
    /// up the tenant.
    ///
    /// # Errors
    /// `RATE_LIMITED`. The response must not reveal this error to the client.
    pub async fn tenant_without_name(&self, class: RateClass, tenant: TenantId) -> Result<()> {
        let name = format!("{}/unnamed", CounterNames::tenant(tenant));
        self.take_for_tenant(tenant, self.0.rates.tenant(class), &name).await
    }

    /// An id that stands for a tenant that does not exist, derived from the id or slug that the
    /// call named. Calls that name such a tenant are counted like the calls of an existing tenant.
    #[must_use]
    pub fn placeholder_tenant(&self, named: &str) -> TenantId {
        self.0.names.placeholder_tenant(named)
    }

    /// An id that stands for the tenant of a call from this address that names no tenant.
    #[must_use]
    pub fn placeholder_tenant_of_network(&self, ip: Option<IpAddr>) -> TenantId {
        self.0.names.placeholder_tenant_of_network(ip)
    }

    /// Counts a mail to this account, whether the account exists or not, and to this address in
    /// all tenants together.
    ///
    /// # Errors
    /// `RATE_LIMITED` above the limit of mails. The response must not reveal this error to the
    /// client.
    pub async fn mail(&self, tenant: TenantId, email_key: &str) -> Result<()> {
        self.mail_to_verified(tenant, email_key).await?;
        // This refusal is not counted for the tenant's audit trail, because it would reveal mails
        // to the address in other tenants.
        self.take(Rates::mailbox(), &self.0.names.mailbox(email_key)).await
    }

    /// Counts a mail to an account whose owner has verified the address. Mails to the same
    /// address in other tenants are not included, because the address may be unverified there.
    ///
    /// # Errors
    /// `RATE_LIMITED` above the limit of mails. The response must not reveal this error to the
    /// client.
    pub async fn mail_to_verified(&self, tenant: TenantId, email_key: &str) -> Result<()> {
        let name = CounterNames::tenant(tenant);
        let account = self.0.names.account(&name, email_key);
        self.take_for_tenant(tenant, Rates::account(), &format!("{name}/{account}")).await
    }

    /// Counts a call for a tenant, and counts a refusal for the tenant's audit trail.
    async fn take_for_tenant(&self, tenant: TenantId, rule: Rule, name: &str) -> Result<()> {
        let result = self.take(rule, name).await;
        result.inspect_err(|_| self.0.trail.limited(tenant, rule.class.name(), rule.by))
    }

    async fn take(&self, rule: Rule, name: &str) -> Result<()> {
        let Some(rate) = rule.rate else { return Ok(()) };
        let redis_wait = if rule.class.is_shared() {
            let (limits, key) = (self.0.clone(), rule.key(name));
            // In its own task, so that a call is counted even if the client cancels it.
            let work = async move { limits.redis.take(&key, rate).await };
            let wait = tokio::spawn(work.with_current_context()).await.ok().and_then(Result::ok);
            if wait.is_none() {
                self.0.metrics.counted_alone();
            }
            wait
        } else {
            None
        };
        let wait = redis_wait.unwrap_or_else(|| self.0.local.take(&rule, name));
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
