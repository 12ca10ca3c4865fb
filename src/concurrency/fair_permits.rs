//! Permits that tenants share fairly.
//!
//! A tenant gets a permit while it holds fewer permits than are free (dynamic thresholds,
//! Choudhury and Hahne 1998). So one tenant holds at most half of all permits, two tenants hold at
//! most a third each, and a further tenant still gets one. Waiting tenants are served in turn
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
    /// Tenants that hold a permit or wait for one. There are at most as many as calls in flight.
    tenants: HashMap<TenantId, Tenant>,
    /// Tenants that wait, next one first. Calls of some of them may have been cancelled.
    turns: VecDeque<TenantId>,
}

#[derive(Debug, Default)]
struct Tenant {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// A permit. Dropping it returns it to the pool.
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
            let Some(granted) = self.lock().take(tenant) else {
                return Permit { shares: self.clone(), tenant };
            };
            // A sender is dropped without a permit only after its receiver was closed; then retry.
            if let Ok(permit) = granted.await {
                return permit;
            }
        }
    }

    fn release(self: &Arc<Self>, tenant: TenantId) {
        let granted = self.lock().release(tenant);
        for (tenant, waiting) in granted {
            // If the receiver is gone, dropping the permit returns it to the pool.
            drop(waiting.send(Permit { shares: self.clone(), tenant }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a permit. If the tenant can't have one now, returns a receiver that gets the permit
    /// later.
    fn take(&mut self, tenant: TenantId) -> Option<oneshot::Receiver<Permit>> {
        let of_tenant = self.tenants.entry(tenant).or_default();
        if of_tenant.held < self.free {
            of_tenant.held += 1;
            self.free -= 1;
            return None;
        }
        let (grant, granted) = oneshot::channel();
        if of_tenant.waiting.is_empty() {
            self.turns.push_back(tenant);
        }
        of_tenant.waiting.push_back(grant);
        Some(granted)
    }

    /// Returns a permit to the pool. Returns the waiting calls that get a permit now.
    fn release(&mut self, tenant: TenantId) -> Vec<(TenantId, oneshot::Sender<Permit>)> {
        self.free += 1;
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.held -= 1;
        }
        let mut granted = Vec::new();
        for _ in 0..self.turns.len() {
            if self.free == 0 {
                break;
            }
            let Some(next) = self.turns.pop_front() else { break };
            let Some(of_next) = self.tenants.get_mut(&next) else { continue };
            of_next.waiting.retain(|waiting| !waiting.is_closed());
            if of_next.held < self.free
                && let Some(waiting) = of_next.waiting.pop_front()
            {
                of_next.held += 1;
                self.free -= 1;
                granted.push((next, waiting));
            }
            if !of_next.waiting.is_empty() {
                self.turns.push_back(next);
            }
        }
        self.tenants.retain(|_, tenant| tenant.held > 0 || !tenant.waiting.is_empty());
        granted
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
    async fn a_tenant_holds_half_and_others_find_some() {
        let shares = FairPermits::new(4);
        let (one, other) = (TenantId::new(), TenantId::new());
        let held = [shares.acquire(one).await, shares.acquire(one).await];
        assert!(shares.acquire(one).now_or_never().is_none(), "it waits");
        let of_other = shares.acquire(other).now_or_never().expect("there is one");
        assert!(shares.acquire(other).now_or_never().is_none(), "as many are free");
        drop((held, of_other));
        assert!(shares.acquire(one).now_or_never().is_some());
        assert!(is_idle(&shares));
    }

    /// N22: two tenants held all connections between them.
    #[tokio::test]
    async fn some_tenants_never_hold_all_between_them() {
        for tenants in 1..10_usize {
            let shares = FairPermits::new(20);
            let all: Vec<_> = (0..tenants).map(|_| TenantId::new()).collect();
            let mut held = Vec::new();
            loop {
                let before = held.len();
                let more = all.iter().filter_map(|&one| shares.acquire(one).now_or_never());
                held.extend(more);
                if held.len() == before {
                    break;
                }
            }
            assert!(held.len() >= 20 * tenants / (tenants + 1) - tenants, "{tenants}");
            assert!(shares.acquire(TenantId::new()).now_or_never().is_some(), "{tenants}");
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_turns() {
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
        let of_other = shares.acquire(other).await;
        let more = tokio::spawn({
            let shares = shares.clone();
            async move { shares.acquire(other).await }
        });
        tokio::task::yield_now().await;
        drop(held);
        tokio::task::yield_now().await;
        assert_eq!(waiting.iter().filter(|one| one.is_finished()).count(), 1);
        drop(of_other);
        drop(more.await.expect("its turn, before the others of the first"));
        for one in waiting {
            drop(one.await.expect("its turn"));
        }
        assert!(is_idle(&shares));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_given_back() {
        let shares = FairPermits::new(2);
        let tenant = TenantId::new();
        let held = shares.acquire(tenant).await;
        let mut given_up = Box::pin(shares.acquire(tenant));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(held);
        drop(given_up);
        assert!(is_idle(&shares), "granted, and dropped unseen");
        let held = shares.acquire(tenant).await;
        let mut given_up = Box::pin(shares.acquire(tenant));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(held);
        assert!(is_idle(&shares), "given up before it was granted");
    }
}
