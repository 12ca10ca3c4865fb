//! The share of a tenant or a network in the queue: slots and turns.

use std::{collections::HashMap, hash::Hash};

/// A network may hold this many times the number of free slots; a tenant may hold as many as
/// are free. So one network leaves a quarter of the slots free, and one tenant leaves half.
const OF_NETWORK: usize = 3;

/// Within a tenant's share, a network may hold this many times what is left of the share. So it
/// leaves slots for the tenant's other networks.
const OF_TENANTS_NETWORK: usize = 2;

/// Why a slot is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::passwords) enum Full {
    /// All slots are in use.
    All,
    /// The tenant holds its share.
    OfTenant,
    /// The network holds its share.
    OfNetwork,
}

/// Numbers of slots.
#[derive(Clone, Copy)]
pub(super) struct Usage {
    pub free: usize,
    /// Held by the tenant.
    pub tenant: usize,
    /// Held by the network.
    pub network: usize,
    /// Held by the tenant within the network.
    pub both: usize,
}

impl Usage {
    /// Whether the tenant may take one more slot from the network (dynamic thresholds).
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

/// The share of one tenant, network or owner.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    /// Number of slots held.
    pub slots: usize,
    /// Number of waiting and running jobs.
    pub jobs: usize,
    /// The earliest start of the next job, in the queue's virtual time.
    pub start: u64,
    /// Whether the last job was expensive.
    pub last_expensive: bool,
}

/// The shares of all tenants, networks or owners.
pub(super) struct FairPermits<K>(HashMap<K, Share>);

impl<K> Default for FairPermits<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> FairPermits<K> {
    pub(super) fn get(&self, of: &K) -> Share {
        self.0.get(of).copied().unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, of: K) -> &mut Share {
        self.0.entry(of).or_default()
    }

    /// Drops entries without slots and jobs, unless their start is ahead of the clock. If more
    /// than `most` entries remain, drops those as well.
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
