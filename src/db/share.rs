//! How many connections of the pool one tenant's work holds at once.
//!
//! Half of the pool, and at least one: whatever one tenant's statements wait for, the
//! others' calls get connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// How long a tenant's work waits for a connection of its share.
const WAIT: Duration = Duration::from_secs(2);

/// The shares of all tenants that have work.
#[derive(Debug)]
pub(super) struct Shares {
    per_tenant: usize,
    /// Of tenants whose work holds a connection or waits for one: at most as many as there
    /// are calls in progress.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    refused: Counter,
}

/// The right to hold one connection, until dropped.
#[derive(Debug)]
pub(super) struct Permit {
    shares: Arc<Shares>,
    tenant: TenantId,
    semaphore: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Shares {
    pub(super) fn of(max_connections: u32) -> Arc<Self> {
        Arc::new(Self {
            per_tenant: usize::try_from(max_connections / 2).unwrap_or(usize::MAX).max(1),
            tenants: Mutex::default(),
            refused: Counter::default(),
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Calls that were refused, for their tenant's work held its share of the \
                    connections to Postgres";
        registry.register("tenantry_db_share_refused", help, self.refused.clone());
    }

    /// Waits for one of the tenant's connections to be free.
    ///
    /// # Errors
    /// OVERLOADED when none becomes free in time.
    pub(super) async fn acquire(self: &Arc<Self>, tenant: TenantId) -> Result<Permit> {
        let semaphore = self.semaphore(tenant);
        // Dropped on every way out, also when the call is cancelled while it waits.
        let mut waiting =
            Permit { shares: self.clone(), tenant, semaphore: semaphore.clone(), held: None };
        let Ok(Ok(permit)) = time::timeout(WAIT, semaphore.acquire_owned()).await else {
            self.refused.inc();
            let text = "the tenant's other calls hold its share of the connections";
            return Err(Error::refused(ErrorReason::Overloaded, text));
        };
        waiting.held = Some(permit);
        Ok(waiting)
    }

    fn semaphore(&self, tenant: TenantId) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(self.per_tenant));
        self.lock().entry(tenant).or_insert_with(new).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Semaphore>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut tenants = self.shares.lock();
        // The map's and this one's: nobody else holds a connection or waits.
        if Arc::strong_count(&self.semaphore) == 2 {
            tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_tenant_holds_half_and_others_are_not_refused() {
        let shares = Shares::of(4);
        let (one, other) = (TenantId::new(), TenantId::new());
        let held = [shares.acquire(one).await, shares.acquire(one).await];
        assert!(held.iter().all(Result::is_ok));
        assert!(shares.acquire(one).now_or_never().is_none(), "it waits");
        assert!(shares.acquire(other).await.is_ok());
        drop(held);
        assert!(shares.acquire(one).await.is_ok());
        assert!(shares.lock().is_empty(), "no tenant has work");
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back() {
        let shares = Shares::of(1);
        let tenant = TenantId::new();
        let held = shares.acquire(tenant).await.expect("free");
        let (permit, ()) = tokio::join!(shares.acquire(tenant), async { drop(held) });
        drop(permit.expect("given back"));
        assert!(shares.lock().is_empty(), "no tenant has work");
    }
}
