//! Permits that tenants share fairly.
//!
//! A tenant gets a permit only while it holds fewer permits than are free (dynamic thresholds,
//! Choudhury and Hahne 1998). So one tenant alone takes about half of all permits, two tenants take
//! about a third each, and a further tenant still gets a permit. Waiting tenants are served in turn
//! (round robin).

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
    tenants: HashMap<TenantId, Tenant>,
    /// Waiting tenants, the next tenant first. Some of their calls may have been cancelled.
    turns: VecDeque<TenantId>,
}

#[derive(Debug, Default)]
struct Tenant {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// A permit for one piece of work. Dropping the permit returns it to the pool.
#[derive(Debug)]
pub struct Permit {
    shares: Arc<FairPermits>,
    tenant: TenantId,
}

impl FairPermits {
    /// Creates a pool of `permits` permits, at least two: with a single permit, one tenant could
    /// block all others.
    #[must_use]
    pub fn new(permits: usize) -> Arc<Self> {
        let state = State { free: permits.max(2), tenants: HashMap::new(), turns: VecDeque::new() };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Waits for a permit. The wait has no timeout; the caller must set one.
    pub async fn acquire(self: &Arc<Self>, tenant: TenantId) -> Permit {
        loop {
            let Some(receiver) = self.lock().take(tenant) else {
                return Permit { shares: self.clone(), tenant };
            };
            // A sender is dropped without a permit only after its receiver was closed; then retry.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    fn release(self: &Arc<Self>, tenant: TenantId) {
        let grants = self.lock().release(tenant);
        for (tenant, sender) in grants {
            // If the receiver was dropped, dropping the permit returns it to the pool.
            drop(sender.send(Permit { shares: self.clone(), tenant }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a permit and returns `None`. If the tenant may not take a permit now, queues the call
    /// and returns a receiver for the permit.
    fn take(&mut self, tenant: TenantId) -> Option<oneshot::Receiver<Permit>> {
        let tenant_state = self.tenants.entry(tenant).or_default();
        if tenant_state.held < self.free {
            tenant_state.held += 1;
            self.free -= 1;
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        if tenant_state.waiting.is_empty() {
            self.turns.push_back(tenant);
        }
        tenant_state.waiting.push_back(sender);
        Some(receiver)
    }

    /// Returns a permit to the pool. The result has the senders of the waiting calls that get a
    /// permit now.
    fn release(&mut self, tenant: TenantId) -> Vec<(TenantId, oneshot::Sender<Permit>)> {
        self.free += 1;
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.held -= 1;
        }
        let mut grants = Vec::new();
        for _ in 0..self.turns.len() {
            if self.free == 0 {
                break;
            }
            let Some(next) = self.turns.pop_front() else { break };
            let Some(next_tenant_state) = self.tenants.get_mut(&next) else { continue };
            next_tenant_state.waiting.retain(|sender| !sender.is_closed());
            if next_tenant_state.held < self.free
                && let Some(sender) = next_tenant_state.waiting.pop_front()
            {
                next_tenant_state.held += 1;
                self.free -= 1;
                grants.push((next, sender));
            }
            if !next_tenant_state.waiting.is_empty() {
                self.turns.push_back(next);
            }
        }
        self.tenants.retain(|_, tenant| tenant.held > 0 || !tenant.waiting.is_empty());
        grants
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shares.clone().release(self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_idle(shares: &FairPermits) -> bool {
        let state = shares.lock();
        state.tenants.is_empty() && state.turns.is_empty()
    }

    #[tokio::test]
    async fn a_tenant_takes_half_of_the_permits_and_another_tenant_still_gets_one() {
        let shares = FairPermits::new(4);
        let (one, other) = (TenantId::new(), TenantId::new());
        let held = [shares.acquire(one).await, shares.acquire(one).await];
        assert!(
            shares.acquire(one).now_or_never().is_none(),
            "the tenant waits at half of the permits"
        );
        let other_permit =
            shares.acquire(other).now_or_never().expect("no permit is free for the other tenant");
        assert!(
            shares.acquire(other).now_or_never().is_none(),
            "the tenant holds as many permits as are free"
        );
        drop((held, other_permit));
        assert!(shares.acquire(one).now_or_never().is_some());
        assert!(is_idle(&shares));
    }

    /// N22: a few tenants together never hold all permits. Two tenants once held all connections.
    #[tokio::test]
    async fn a_few_tenants_never_hold_all_permits() {
        for tenants in 1..10_usize {
            let shares = FairPermits::new(20);
            let all: Vec<_> = (0..tenants).map(|_| TenantId::new()).collect();
            let mut held = Vec::new();
            loop {
                let before = held.len();
                let batch = all.iter().filter_map(|&id| shares.acquire(id).now_or_never());
                held.extend(batch);
                if held.len() == before {
                    break;
                }
            }
            assert!(held.len() >= 20 * tenants / (tenants + 1) - tenants, "{tenants}");
            assert!(shares.acquire(TenantId::new()).now_or_never().is_some(), "{tenants}");
        }
    }

    #[tokio::test]
    async fn waiting_tenants_are_served_in_turn() {
        let shares = FairPermits::new(2);
        let (one, other) = (TenantId::new(), TenantId::new());
        let held = shares.acquire(one).await;
        let waiting: Vec<_> = [one, one, one]
            .map(|one| {
                tokio::spawn({
                    let shares = shares.clone();
                    async move { shares.acquire(one).await }
                })
            })
            .into();
        tokio::task::yield_now().await;
        let other_permit = shares.acquire(other).await;
        let other_waiting = tokio::spawn({
            let shares = shares.clone();
            async move { shares.acquire(other).await }
        });
        tokio::task::yield_now().await;
        drop(held);
        tokio::task::yield_now().await;
        assert_eq!(waiting.iter().filter(|call| call.is_finished()).count(), 1);
        drop(other_permit);
        drop(other_waiting.await.expect("the other tenant's call failed"));
        for call in waiting {
            drop(call.await.expect("the waiting call failed"));
        }
        assert!(is_idle(&shares));
    }

    #[tokio::test]
    async fn a_permit_for_a_cancelled_call_returns_to_the_pool() {
        let shares = FairPermits::new(2);
        let tenant = TenantId::new();
        let held = shares.acquire(tenant).await;
        let mut cancelled = Box::pin(shares.acquire(tenant));
        assert!(cancelled.as_mut().now_or_never().is_none());
        drop(held);
        drop(cancelled);
        assert!(is_idle(&shares), "the call is cancelled after its permit was sent");
        let held = shares.acquire(tenant).await;
        let mut cancelled = Box::pin(shares.acquire(tenant));
        assert!(cancelled.as_mut().now_or_never().is_none());
        drop(cancelled);
        drop(held);
        assert!(is_idle(&shares), "the call is cancelled before a permit is free");
    }
}
