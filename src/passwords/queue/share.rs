//! The share of a tenant, a network or an owner in the queue: the number of its slots, and the
//! start of its next job.

use std::{collections::HashMap, hash::Hash};

/// A network may hold this many times the number of free slots, so one network leaves a quarter of
/// all slots free. A tenant may hold as many slots as are free, so one tenant leaves half of all
/// slots free.
const OF_NETWORK: usize = 3;

/// A network may hold this many times the number of slots that are left to the tenant, for jobs of
/// the tenant. So one network leaves slots for the tenant's other networks.
const OF_TENANTS_NETWORK: usize = 2;

/// The reason why a slot is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::passwords) enum QueueFull {
    /// All slots are in use.
    Total,
    /// The tenant uses all slots that it may use.
    TenantShare,
    /// The network uses all slots that it may use, in total or for jobs of the tenant.
    NetworkShare,
}

/// Numbers of slots.
#[derive(Clone, Copy)]
pub(super) struct SlotUsage {
    pub free: usize,
    /// Slots that the tenant holds.
    pub of_tenant: usize,
    /// Slots that the network holds.
    pub of_network: usize,
    /// Slots that the tenant holds from this network.
    pub of_owner: usize,
}

impl SlotUsage {
    /// Checks whether the tenant may take one more slot from this network (dynamic thresholds).
    pub(super) fn check_slot(self) -> Result<(), QueueFull> {
        let Self { free, of_tenant, of_network, of_owner } = self;
        let left_to_tenant = free.saturating_sub(of_tenant);
        if free == 0 {
            Err(QueueFull::Total)
        } else if left_to_tenant == 0 {
            Err(QueueFull::TenantShare)
        } else if of_network >= OF_NETWORK * free || of_owner >= OF_TENANTS_NETWORK * left_to_tenant
        {
            Err(QueueFull::NetworkShare)
        } else {
            Ok(())
        }
    }
}

/// The share of one tenant, network or owner.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    /// Number of slots in use.
    pub slots: usize,
    /// Number of waiting and running jobs.
    pub jobs: usize,
    /// The earliest start of the next job, in the queue's virtual time.
    pub start: u64,
    /// Whether the last job was expensive.
    pub last_expensive: bool,
}

/// The shares of all tenants, networks or owners.
pub(super) struct Shares<K>(HashMap<K, Share>);

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Shares<K> {
    pub(super) fn get(&self, key: &K) -> Share {
        self.0.get(key).copied().unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, key: K) -> &mut Share {
        self.0.entry(key).or_default()
    }

    /// Removes the entries without slots and jobs, except those whose start is later than the
    /// virtual time. If more than `max_entries` entries remain, removes these exceptions too.
    pub(super) fn remove_unused(&mut self, virtual_time: u64, max_entries: usize) {
        let is_in_use = |share: &Share| share.slots > 0 || share.jobs > 0;
        self.0.retain(|_, share| is_in_use(share) || share.start > virtual_time);
        if self.0.len() > max_entries {
            self.0.retain(|_, share| is_in_use(share));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
