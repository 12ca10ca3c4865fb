//! Permits that tenants share fairly.
//!
//! A tenant gets a permit only while the tenant holds fewer permits than are free (dynamic
//! thresholds, Choudhury and Hahne 1998). So one tenant alone gets at most about half of all
//! permits, two tenants get about a third each, and a further tenant still gets a permit. Waiting
//! tenants get permits in turn (round robin).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::ids::TenantId;

/// A pool of permits for the work of tenants.
#[derive(Debug)]
pub struct FairPermits(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Tenants that hold a permit or wait for a permit. The map has at most one entry for each call
    /// in flight.
    tenants: HashMap<TenantId, TenantState>,
    /// Tenants with waiting calls, in the order in which they get the next permits. Some of the
    /// calls may have been cancelled.
    waiting_tenants: VecDeque<TenantId>,
}

#[derive(Debug, Default)]
struct TenantState {
    permits: usize,
    waiting_calls: VecDeque<oneshot::Sender<Permit>>,
}

/// A permit for one piece of work. Dropping the permit returns it to the pool.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<FairPermits>,
    tenant: TenantId,
}

impl FairPermits {
    /// Creates a pool of `permits` permits, at least two: with a single permit, one tenant could
    /// block all others.
    #[must_use]
    pub fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: permits.max(2),
            tenants: HashMap::new(),
            waiting_tenants: VecDeque::new(),
        })))
    }

    /// Waits for a permit. The wait has no timeout; the caller must set one.
    pub async fn acquire(self: &Arc<Self>, tenant: TenantId) -> Permit {
        loop {
            let Some(receiver) = self.lock().take_or_queue(tenant) else {
                return Permit { pool: self.clone(), tenant };
            };
            // No error is expected: a sender is dropped without a permit only after its receiver
            // was dropped. After an error the loop would ask again.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    fn release(self: &Arc<Self>, tenant: TenantId) {
        let grants = self.lock().release(tenant);
        for (tenant, sender) in grants {
            // If the call was cancelled, `send` returns the permit, and the drop of the permit
            // returns it to the pool.
            drop(sender.send(Permit { pool: self.clone(), tenant }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a permit and returns `None`. If the tenant may not take a permit now, queues the call
    /// and returns a receiver for the permit.
    fn take_or_queue(&mut self, tenant: TenantId) -> Option<oneshot::Receiver<Permit>> {
        let tenant_state = self.tenants.entry(tenant).or_default();
        if tenant_state.permits < self.free {
            tenant_state.permits += 1;
            self.free -= 1;
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        if tenant_state.waiting_calls.is_empty() {
            self.waiting_tenants.push_back(tenant);
        }
        tenant_state.waiting_calls.push_back(sender);
        Some(receiver)
    }

    /// Returns a permit to the pool. The result contains the senders of the waiting calls that get
    /// a permit now.
    fn release(&mut self, tenant: TenantId) -> Vec<(TenantId, oneshot::Sender<Permit>)> {
        self.free += 1;
        if let Some(tenant_state) = self.tenants.get_mut(&tenant) {
            tenant_state.permits -= 1;
        }
        let mut grants = Vec::new();
        // Each waiting tenant has one turn.
        for _ in 0..self.waiting_tenants.len() {
            if self.free == 0 {
                break;
            }
            let Some(next_tenant) = self.waiting_tenants.pop_front() else { break };
            let Some(next_state) = self.tenants.get_mut(&next_tenant) else { continue };
            // The channel of a cancelled call is closed.
            next_state.waiting_calls.retain(|sender| !sender.is_closed());
            if next_state.permits < self.free
                && let Some(sender) = next_state.waiting_calls.pop_front()
            {
                next_state.permits += 1;
                self.free -= 1;
                grants.push((next_tenant, sender));
            }
            if !next_state.waiting_calls.is_empty() {
                self.waiting_tenants.push_back(next_tenant);
            }
        }
        self.tenants.retain(|_, state| state.permits > 0 || !state.waiting_calls.is_empty());
        grants
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.clone().release(self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_idle(pool: &FairPermits) -> bool {
        let state = pool.lock();
        state.tenants.is_empty() && state.waiting_tenants.is_empty()
    }

    #[tokio::test]
    async fn a_tenant_with_half_of_the_permits_leaves_the_other_half_to_others() {
        let pool = FairPermits::new(4);
        let (tenant, other_tenant) = (TenantId::new(), TenantId::new());
        let permits = [pool.acquire(tenant).await, pool.acquire(tenant).await];
        assert!(
            pool.acquire(tenant).now_or_never().is_none(),
            "the tenant holds half of the permits"
        );
        let other_permit = pool
            .acquire(other_tenant)
            .now_or_never()
            .expect("a permit is free for the other tenant");
        assert!(
            pool.acquire(other_tenant).now_or_never().is_none(),
            "the other tenant holds one permit, and one is free"
        );
        drop((permits, other_permit));
        assert!(pool.acquire(tenant).now_or_never().is_some());
        assert!(is_idle(&pool));
    }

    /// N22: a few tenants together never hold all permits. In an earlier version, two tenants could
    /// hold all connections.
    #[tokio::test]
    async fn a_few_tenants_never_hold_all_permits() {
        for count in 1..10_usize {
            let pool = FairPermits::new(20);
            let tenants: Vec<_> = (0..count).map(|_| TenantId::new()).collect();
            let mut permits = Vec::new();
            loop {
                let before = permits.len();
                let batch = tenants.iter().filter_map(|&id| pool.acquire(id).now_or_never());
                permits.extend(batch);
                if permits.len() == before {
                    break;
                }
            }
            // Each tenant gets 20 / (count + 1) permits, or one less because of rounding.
            assert!(permits.len() >= 20 * count / (count + 1) - count, "{count} tenants");
            assert!(pool.acquire(TenantId::new()).now_or_never().is_some(), "{count} tenants");
        }
    }

    #[tokio::test]
    async fn waiting_tenants_are_served_in_turn() {
        let pool = FairPermits::new(2);
        let (tenant, other_tenant) = (TenantId::new(), TenantId::new());
        let permit = pool.acquire(tenant).await;
        let waiting_calls: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let pool = pool.clone();
                    async move { pool.acquire(tenant).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let other_permit = pool.acquire(other_tenant).await;
        let other_waiting_call = tokio::spawn({
            let pool = pool.clone();
            async move { pool.acquire(other_tenant).await }
        });
        tokio::task::yield_now().await;
        drop(permit);
        tokio::task::yield_now().await;
        let served_calls = waiting_calls.iter().filter(|call| call.is_finished()).count();
        assert_eq!(served_calls, 1, "only one permit was returned");
        drop(other_permit);
        drop(other_waiting_call.await.expect("the other tenant's call gets a permit"));
        for call in waiting_calls {
            drop(call.await.expect("the waiting call gets a permit"));
        }
        assert!(is_idle(&pool));
    }

    #[tokio::test]
    async fn a_permit_for_a_cancelled_call_returns_to_the_pool() {
        let pool = FairPermits::new(2);
        let tenant = TenantId::new();
        let permit = pool.acquire(tenant).await;
        let mut cancelled_call = Box::pin(pool.acquire(tenant));
        assert!(cancelled_call.as_mut().now_or_never().is_none());
        drop(permit);
        drop(cancelled_call);
        assert!(is_idle(&pool), "the permit was sent before the call was cancelled");
        let permit = pool.acquire(tenant).await;
        let mut cancelled_call = Box::pin(pool.acquire(tenant));
        assert!(cancelled_call.as_mut().now_or_never().is_none());
        drop(cancelled_call);
        drop(permit);
        assert!(is_idle(&pool), "the call was cancelled before a permit was free");
    }
}
