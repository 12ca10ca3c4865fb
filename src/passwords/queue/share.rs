//! What a tenant or a network has of the queue: slots and turns.

use std::{collections::HashMap, hash::Hash};

/// A network may have so many times what is free; a tenant may have as many as are free. So
/// one network leaves a quarter, and one tenant half.
const OF_NETWORK: usize = 3;

/// Of a tenant's share a network may have so many times what is left of it: the tenant's
/// other networks find some.
const OF_TENANTS_NETWORK: usize = 2;

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::passwords) enum Full {
    /// All are taken.
    All,
    /// The tenant has its share.
    OfTenant,
    /// The network has its share.
    OfNetwork,
}

/// How many there are of something.
#[derive(Clone, Copy)]
pub(super) struct Usage {
    pub free: usize,
    /// Those of a tenant.
    pub tenant: usize,
    /// Those of a network.
    pub network: usize,
    /// Those that the tenant has from the network.
    pub both: usize,
}

impl Usage {
    /// Whether there is room for one more of the tenant's from the network (dynamic
    /// thresholds).
    pub(super) fn room(self) -> Result<(), Full> {
        let Self { free, tenant, network, both } = self;
        let left_of_tenant = free.saturating_sub(tenant);
        if free == 0 {
            Err(Full::All)
        } else if left_of_tenant == 0 {
            Err(Full::OfTenant)
        } else if network >= OF_NETWORK * free || both >= OF_TENANTS_NETWORK * left_of_tenant {
            Err(Full::OfNetwork)
        } else {
            Ok(())
        }
    }
}

/// One's share.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    /// Its slots.
    pub slots: usize,
    /// Its jobs, which wait or run.
    pub jobs: usize,
    /// When its next job may start, by the queue's clock.
    pub start: u64,
    /// Whether its last job was expensive.
    pub last_expensive: bool,
}

/// The shares of all tenants, or of all networks.
pub(super) struct Shares<K>(HashMap<K, Share>);

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Shares<K> {
    pub(super) fn get(&self, of: &K) -> Share {
        self.0.get(of).copied().unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, of: K) -> &mut Share {
        self.0.entry(of).or_default()
    }

    /// Forgets those that have nothing, but for those that were served ahead of others: as
    /// many as these at most.
    pub(super) fn forget(&mut self, clock: u64, most: usize) {
        let has_any = |share: &Share| share.slots > 0 || share.jobs > 0;
        self.0.retain(|_, share| has_any(share) || share.start > clock);
        if self.0.len() > most {
            self.0.retain(|_, share| has_any(share));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
