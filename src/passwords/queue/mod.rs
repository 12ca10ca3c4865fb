//! The bounded queue of the hashing threads, fair between tenants and between networks. The threads
//! are in `hasher.rs`.
//!
//! The *owner* of a job is a tenant together with a network: the tenant that the call works in, and
//! the network that the call comes from.
//!
//! - **Slots.** An operation takes a slot before it hashes. A tenant gets a slot while the tenant
//!   holds fewer slots than are free. A network gets a slot while the network holds fewer than
//!   three times the number of free slots (dynamic thresholds, Choudhury and Hahne 1998). So one
//!   tenant holds at most half of all slots. One network holds at most three quarters, however many
//!   tenants it signs in to. Other tenants and networks always find free slots. The number of slots
//!   that are *left to a tenant* is the number of free slots minus the number of slots that the
//!   tenant holds. An owner holds at most twice the number of slots that are left to its tenant. So
//!   an attacker who guesses passwords of a tenant's users leaves slots for the networks of the
//!   users.
//! - **Expensive jobs** run on a part of the threads only. When the maximum number of expensive
//!   jobs runs, other jobs run before the waiting expensive jobs. After an expensive job of a
//!   tenant, each owner of this tenant runs a cheap job before its expensive jobs. Expensive jobs
//!   have no separate limit of slots, because the error of such a limit would reveal which user has
//!   an expensive hash.
//! - **Turns.** Start-time fair queueing (Goyal 1996), by tenant and by network. The order of the
//!   jobs follows their start tags. A start tag is a point in the virtual time, in units of cost. A
//!   tenant and a network each have a start tag, and the start tag of a job is the higher of the
//!   two. When the job starts, both start tags become the job's start tag plus the job's cost. So
//!   neither a tenant with many networks nor a network with many tenants gets more than one share
//!   of the thread time. Among jobs with equal start tags, the lower one of the two start tags of
//!   tenant and network decides: the job for which it is lower comes first. Idle time gives no
//!   credit: a tenant or network that had no jobs for a while gets no additional thread time
//!   afterwards.

mod jobs;
#[cfg(test)]
mod tests;
mod usage;

use std::{collections::HashMap, net::IpAddr};

pub(super) use jobs::Ticket;
pub(super) use usage::QueueFull;

use crate::{ids::TenantId, limits::WorkOwner};
use jobs::{Jobs, WaitingJob};
use usage::{SlotCounts, Usage, UsageMap};

/// Limits of the queue, and the threshold of an expensive job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Number of slots, for waiting and running jobs.
    pub slots: usize,
    /// Maximum number of expensive jobs that run concurrently.
    pub max_expensive_running: usize,
    /// The maximum cost of a cheap job. A job with a higher cost is expensive.
    pub max_cheap_cost: u64,
}

/// The waiting jobs, and the slots in use.
pub(super) struct Queue<J> {
    bounds: Bounds,
    used_slots: usize,
    /// Number of expensive jobs that run now.
    expensive_running: usize,
    /// The virtual time of the fair queueing, in units of cost: the start tag of the last job that
    /// [`Queue::next`] returned. The virtual time never decreases.
    virtual_time: u64,
    /// The ticket of the last job that was added.
    last_ticket: u64,
    /// The usage by each tenant.
    tenants: UsageMap<TenantId>,
    /// The usage by each network.
    networks: UsageMap<Option<IpAddr>>,
    /// The usage by each owner.
    owners: UsageMap<WorkOwner>,
    /// The waiting jobs, by owner. Owners without waiting jobs have no entry.
    waiting: HashMap<WorkOwner, Jobs<J>>,
}

/// A job that a thread must run now.
pub(super) struct NextJob<J> {
    pub job: J,
    /// The value to pass to [`Queue::record_end`].
    pub info: JobInfo,
}

/// The owner of a job, and whether the job is expensive.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobInfo {
    pub owner: WorkOwner,
    pub expensive: bool,
}

impl<J> Queue<J> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            used_slots: 0,
            expensive_running: 0,
            virtual_time: 0,
            last_ticket: 0,
            tenants: UsageMap::default(),
            networks: UsageMap::default(),
            owners: UsageMap::default(),
            waiting: HashMap::new(),
        }
    }

    /// Checks whether the owner can take a slot.
    pub(super) fn check_slot(&self, owner: WorkOwner) -> Result<(), QueueFull> {
        let (tenant, network) = self.tenant_and_network_usage(owner);
        let counts = SlotCounts {
            free: self.bounds.slots.saturating_sub(self.used_slots),
            of_tenant: tenant.slots,
            of_network: network.slots,
            of_owner: self.owners.get(&owner).slots,
        };
        counts.check_slot()
    }

    /// Takes a slot, if [`Queue::check_slot`] allows it.
    pub(super) fn take_slot(&mut self, owner: WorkOwner) -> Result<(), QueueFull> {
        self.check_slot(owner)?;
        self.used_slots += 1;
        for usage in self.all_usages_mut(owner) {
            usage.slots += 1;
        }
        Ok(())
    }

    /// Makes a slot of the owner free again.
    pub(super) fn release_slot(&mut self, owner: WorkOwner) {
        self.used_slots = self.used_slots.saturating_sub(1);
        for usage in self.all_usages_mut(owner) {
            usage.slots = usage.slots.saturating_sub(1);
        }
        self.remove_unused_entries();
    }

    /// Number of slots in use.
    pub(super) fn used_slots(&self) -> usize {
        self.used_slots
    }

    /// Number of waiting jobs.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.values().map(Jobs::len).sum()
    }

    /// Adds a job after the owner's other jobs. The owner must hold a slot for the job.
    pub(super) fn push(&mut self, owner: WorkOwner, cost: u64, job: J) -> Ticket {
        let expensive = cost > self.bounds.max_cheap_cost;
        self.count_job(owner);
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let waiting = WaitingJob { ticket, cost: cost.max(1), job };
        self.waiting.entry(owner).or_default().push(expensive, waiting);
        ticket
    }

    /// Removes a cancelled job, if the job still waits.
    pub(super) fn remove(&mut self, owner: WorkOwner, ticket: Ticket) -> Option<J> {
        let job = self.waiting.get_mut(&owner)?.remove(ticket)?;
        self.remove_empty_entry(owner);
        self.uncount_job(owner);
        Some(job)
    }

    /// Removes the next job from the queue and returns it; `None` when no waiting job may run now.
    pub(super) fn next(&mut self) -> Option<NextJob<J>> {
        let rank = |(owner, jobs): (&WorkOwner, &Jobs<J>)| self.rank_next_job(*owner, jobs);
        let (rank, info) = self.waiting.iter().filter_map(rank).min_by_key(|(rank, _)| *rank)?;
        let JobInfo { owner, expensive } = info;
        let WaitingJob { cost, job, .. } = self.waiting.get_mut(&owner)?.pop(expensive)?;
        self.remove_empty_entry(owner);
        self.virtual_time = rank.start_tag;
        for usage in self.all_usages_mut(owner) {
            usage.start_tag = rank.start_tag.saturating_add(cost);
            usage.was_last_job_expensive = expensive;
        }
        self.expensive_running += usize::from(expensive);
        Some(NextJob { job, info })
    }

    /// Records the end of a job that [`Queue::next`] returned.
    pub(super) fn record_end(&mut self, info: JobInfo) {
        self.expensive_running -= usize::from(info.expensive).min(self.expensive_running);
        self.uncount_job(info.owner);
    }

    /// The rank of an owner's next job; `None` when no waiting job of the owner may run now.
    fn rank_next_job(&self, owner: WorkOwner, jobs: &Jobs<J>) -> Option<(Rank, JobInfo)> {
        let (tenant, network) = self.tenant_and_network_usage(owner);
        let may_run_expensive = self.expensive_running < self.bounds.max_expensive_running;
        let (expensive, ticket) = jobs.next(may_run_expensive, tenant.was_last_job_expensive)?;
        // Idle time gives no credit: a start tag is never lower than the virtual time.
        let [tenant_start_tag, network_start_tag] =
            [tenant, network].map(|usage| usage.start_tag.max(self.virtual_time));
        let rank = Rank {
            start_tag: tenant_start_tag.max(network_start_tag),
            expensive_again: expensive && tenant.was_last_job_expensive,
            other_start_tag: tenant_start_tag.min(network_start_tag),
            ticket,
        };
        Some((rank, JobInfo { owner, expensive }))
    }

    fn count_job(&mut self, owner: WorkOwner) {
        for usage in self.all_usages_mut(owner) {
            usage.jobs += 1;
        }
    }

    fn uncount_job(&mut self, owner: WorkOwner) {
        for usage in self.all_usages_mut(owner) {
            usage.jobs = usage.jobs.saturating_sub(1);
        }
        self.remove_unused_entries();
    }

    /// The usage by the owner's tenant, and the usage by the owner's network.
    fn tenant_and_network_usage(&self, owner: WorkOwner) -> (Usage, Usage) {
        (self.tenants.get(&owner.tenant), self.networks.get(&owner.network))
    }

    /// The usage by the owner's tenant, by the owner's network, and by the owner.
    fn all_usages_mut(&mut self, owner: WorkOwner) -> [&mut Usage; 3] {
        [
            self.tenants.get_mut(owner.tenant),
            self.networks.get_mut(owner.network),
            self.owners.get_mut(owner),
        ]
    }

    /// Removes the owner's entry if no job of the owner waits.
    fn remove_empty_entry(&mut self, owner: WorkOwner) {
        if self.waiting.get(&owner).is_some_and(|jobs| jobs.len() == 0) {
            self.waiting.remove(&owner);
        }
    }

    fn remove_unused_entries(&mut self) {
        let max_entries = 2 * self.bounds.slots;
        self.tenants.remove_unused(self.virtual_time, max_entries);
        self.networks.remove_unused(self.virtual_time, max_entries);
        self.owners.remove_unused(self.virtual_time, max_entries);
    }
}

/// The rank of an owner's next job: the job with the lowest rank runs first. The first field that
/// differs decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The start tag of the job: the higher one of the start tags of the tenant and the network.
    start_tag: u64,
    /// Whether both this job and the tenant's last job are expensive.
    expensive_again: bool,
    /// The lower one of the start tags of the tenant and the network.
    other_start_tag: u64,
    ticket: Ticket,
}
