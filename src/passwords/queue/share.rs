//! The share of a tenant or a network in the queue: slots and turns.

use std::{collections::HashMap, hash::Hash};

/// A network may hold this many times the number of free slots. A tenant may hold as many slots as
/// are free. So one network leaves a quarter of the slots free, and one tenant leaves half.
const OF_NETWORK: usize = 3;

/// Within a tenant's share, a network may hold this many times the free rest of the share. So one
/// network leaves slots for the tenant's other networks.
const OF_TENANTS_NETWORK: usize = 2;

/// The reason why a slot is refused.
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
    /// Slots that the tenant holds.
    pub tenant: usize,
    /// Slots that the network holds.
    pub network: usize,
    /// Slots that the tenant holds within the network.
    pub both: usize,
}

impl Usage {
    /// Checks whether the tenant may take one more slot from the network (dynamic thresholds).
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
    pub(super) fn get(&self, key: &K) -> Share {
        self.0.get(key).copied().unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, key: K) -> &mut Share {
        self.0.entry(key).or_default()
    }

    /// Drops entries without slots and jobs, unless their start is ahead of the clock. If more
    /// than `max_entries` entries remain, drops all entries without slots and jobs.
    pub(super) fn forget(&mut self, clock: u64, max_entries: usize) {
        let is_in_use = |share: &Share| share.slots > 0 || share.jobs > 0;
        self.0.retain(|_, share| is_in_use(share) || share.start > clock);
        if self.0.len() > max_entries {
            self.0.retain(|_, share| is_in_use(share));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
