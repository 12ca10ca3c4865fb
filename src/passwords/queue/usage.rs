//! The usage of the queue by a tenant, a network or an owner: the number of slots and jobs, and the
//! start tag of the next job.

use std::{collections::HashMap, hash::Hash};

/// A network may hold at most this many times the number of free slots, so one network leaves a
/// quarter of all slots free. A tenant may hold at most as many slots as are free, so one tenant
/// leaves half of all slots free.
const NETWORK_FACTOR: usize = 3;

/// An owner may hold at most this many times the number of slots that are left to its tenant. So
/// one network leaves slots for the tenant's other networks. The number of slots that are left to a
/// tenant is the number of free slots minus the number of slots that the tenant holds.
const OWNER_FACTOR: usize = 2;

/// The reason why a slot is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::passwords) enum QueueFull {
    /// All slots are in use.
    Total,
    /// The tenant holds all slots that the tenant may hold.
    TenantShare,
    /// The network holds all slots that the network may hold, in total or for jobs of the tenant.
    NetworkShare,
}

/// The numbers of slots that decide whether an owner may take one more slot.
#[derive(Clone, Copy)]
pub(super) struct SlotCounts {
    pub free: usize,
    /// Slots that the tenant holds.
    pub of_tenant: usize,
    /// Slots that the network holds.
    pub of_network: usize,
    /// Slots that the owner holds: the slots of the tenant from this network.
    pub of_owner: usize,
}

impl SlotCounts {
    /// Checks whether the owner may take one more slot (dynamic thresholds).
    pub(super) fn check_slot(self) -> Result<(), QueueFull> {
        let Self { free, of_tenant, of_network, of_owner } = self;
        let left_to_tenant = free.saturating_sub(of_tenant);
        if free == 0 {
            Err(QueueFull::Total)
        } else if left_to_tenant == 0 {
            Err(QueueFull::TenantShare)
        } else if of_network >= NETWORK_FACTOR * free || of_owner >= OWNER_FACTOR * left_to_tenant {
            Err(QueueFull::NetworkShare)
        } else {
            Ok(())
        }
    }
}

/// The usage of the queue by one tenant, network or owner.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Number of slots in use.
    pub slots: usize,
    /// Number of waiting and running jobs.
    pub jobs: usize,
    /// The lowest start tag that the next job may have, in the queue's virtual time.
    pub start_tag: u64,
    /// Whether the last job that started was expensive.
    pub was_last_job_expensive: bool,
}

/// The usage of all tenants, of all networks, or of all owners.
pub(super) struct UsageMap<K>(HashMap<K, Usage>);

impl<K> Default for UsageMap<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> UsageMap<K> {
    pub(super) fn get(&self, key: &K) -> Usage {
        self.0.get(key).copied().unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, key: K) -> &mut Usage {
        self.0.entry(key).or_default()
    }

    /// Removes the entries without slots and jobs, except entries whose start tag is higher than
    /// the virtual time: without the start tag, the next job of the tenant or network would run too
    /// early. If more than `max_entries` entries remain, removes these exceptions too.
    pub(super) fn remove_unused(&mut self, virtual_time: u64, max_entries: usize) {
        let is_in_use = |usage: &Usage| usage.slots > 0 || usage.jobs > 0;
        self.0.retain(|_, usage| is_in_use(usage) || usage.start_tag > virtual_time);
        if self.0.len() > max_entries {
            self.0.retain(|_, usage| is_in_use(usage));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
