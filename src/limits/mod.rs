//! Rate limits for calls that are expensive or that can guess a secret.
//!
//! Two independent rules:
//!
//! - **Rates** (`rates.rs`): a maximum number of calls of a class in a period, from one network
//!   and for one tenant. The proto declares each method's class. The gate counts the call for the
//!   network of the client, and a call with a token also for the caller's tenant. For a public
//!   call, the operation counts the call for the tenant as soon as the tenant is known.
//! - **Guesses** (`guesses.rs`): after too many wrong passwords for an account, the network that
//!   sent these passwords has to wait. The wait gets longer each time. Other networks wait only
//!   after a higher number of wrong passwords from all networks together.
//!
//! Redis counts rates and guesses for all replicas together (`redis_limiter.rs`). Each replica
//! counts alone (`local.rs`) while Redis is unavailable, and for classes of frequent calls; the
//! limits then apply to each replica.
//!
//! When a limit of a tenant refuses a call, the refusal is counted for the tenant's audit trail
//! ([`Refusals::record_rate_limit`]).

mod guesses;
mod local;
mod local_guesses;
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
pub use owner::WorkOwner;
pub use proxies::TrustedProxies;
pub use rates::{Rate, RateClass, Rates};

use local::LocalLimiter;
use metrics::Metrics;
use rates::RateLimit;
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
    refusals: Arc<Refusals>,
}

impl Limits {
    /// Creates limits that are counted in this Redis.
    #[must_use]
    pub fn new(
        rates: &Rates,
        names: Arc<CounterNames>,
        redis: Redis,
        refusals: Arc<Refusals>,
        registry: &mut Registry,
    ) -> Self {
        Self(Arc::new(Inner {
            local: LocalLimiter::new(rates),
            rates: *rates,
            names,
            redis: RedisLimiter::new(redis),
            metrics: Metrics::register(registry),
            refusals,
        }))
    }

    /// Counts a call of this class from this address.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next call is allowed.
    pub async fn count_for_network(&self, class: RateClass, ip: Option<IpAddr>) -> Result<()> {
        let Some(ip) = ip else { return Ok(()) };
        let name = self.0.names.network(ip);
        self.count_call(self.0.rates.network(class), &name).await
    }

    /// Counts a call of this class for this tenant.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next call is allowed.
    pub async fn count_for_tenant(&self, class: RateClass, tenant: TenantId) -> Result<()> {
        let name = CounterNames::tenant(tenant);
        self.count_call_of_tenant(tenant, self.0.rates.tenant(class), &name).await
    }

    /// Counts a call for this tenant, which the call did not name. Calls that do not name the
    /// tenant are counted separately from calls that name the tenant. Otherwise the response to a
    /// call that names the tenant would reveal that other calls found the tenant by an email. For
    /// the same reason, a refusal is not counted for the tenant's audit trail.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next call is allowed. The response must not reveal
    /// this error to the client.
    pub async fn count_for_unnamed_tenant(&self, class: RateClass, tenant: TenantId) -> Result<()> {
        let name = format!("{}/unnamed", CounterNames::tenant(tenant));
        self.count_call(self.0.rates.tenant(class), &name).await
    }

    /// The placeholder id of a tenant that does not exist, derived from the id or slug that the
    /// call named. With this id, calls that name the tenant are counted as if the tenant existed.
    #[must_use]
    pub fn placeholder_tenant(&self, id_or_slug: &str) -> TenantId {
        self.0.names.placeholder_tenant(id_or_slug)
    }

    /// The placeholder id of the tenant for a call that names no tenant, derived from the network
    /// of the call's address.
    #[must_use]
    pub fn placeholder_tenant_of_network(&self, ip: Option<IpAddr>) -> TenantId {
        self.0.names.placeholder_tenant_of_network(ip)
    }

    /// Counts a mail to this account and checks the rate, whether the account exists or not. Also
    /// counts the mail for the address, in all tenants together.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many mails to the account or to the address. The response must not
    /// reveal this error to the client.
    pub async fn check_account_and_address_mail_rate(
        &self,
        tenant: TenantId,
        normalized_email: &str,
    ) -> Result<()> {
        self.check_account_mail_rate(tenant, normalized_email).await?;
        // A refusal by this limit is not counted for the tenant's audit trail, because the refusal
        // would reveal mails to the address in other tenants.
        self.count_call(Rates::mailbox(), &self.0.names.mailbox(normalized_email)).await
    }

    /// Counts a mail to this account only, and checks the rate. This is enough if the owner has
    /// verified the address. Mails to the same address in other tenants are not included, because
    /// the address may be unverified there.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many mails to the account. The response must not reveal this error
    /// to the client.
    pub async fn check_account_mail_rate(
        &self,
        tenant: TenantId,
        normalized_email: &str,
    ) -> Result<()> {
        let name = CounterNames::tenant(tenant);
        let account = self.0.names.account(&name, normalized_email);
        self.count_call_of_tenant(tenant, Rates::account(), &format!("{name}/{account}")).await
    }

    /// Counts a call or a mail of a tenant. A refusal is counted for the tenant's audit trail.
    async fn count_call_of_tenant(
        &self,
        tenant: TenantId,
        limit: RateLimit,
        name: &str,
    ) -> Result<()> {
        let result = self.count_call(limit, name).await;
        result.inspect_err(|_| {
            self.0.refusals.record_rate_limit(tenant, limit.class.name(), limit.by);
        })
    }

    /// Counts a call or a mail under the name of a counter.
    async fn count_call(&self, limit: RateLimit, name: &str) -> Result<()> {
        let Some(rate) = limit.rate else { return Ok(()) };
        let redis_wait = if limit.class.is_shared() {
            let (limits, key) = (self.0.clone(), limit.key(name));
            // In a separate task, so that the call is counted even if the client cancels the call.
            let count = async move { limits.redis.count_call(&key, rate).await };
            let wait = tokio::spawn(count.with_current_context()).await.ok().and_then(Result::ok);
            if wait.is_none() {
                self.0.metrics.record_counted_alone();
            }
            wait
        } else {
            None
        };
        let wait = redis_wait.unwrap_or_else(|| self.0.local.count_call(&limit, name));
        self.check_wait(wait, limit.class.name(), limit.by)
    }

    /// Refuses a call that has to wait.
    fn check_wait(&self, wait: Duration, class: &'static str, by: &'static str) -> Result<()> {
        if wait.is_zero() {
            return Ok(());
        }
        self.0.metrics.record_refusal(class, by);
        Err(Error::RateLimited(wait))
    }
}
