//! The bounded queue of the hashing threads, fair between tenants and between networks. The threads
//! are in `hasher.rs`.
//!
//! - **Slots.** A caller takes a slot before it hashes. A tenant gets a slot while it holds
//!   fewer slots than are free. A network gets a slot while it holds fewer slots than three times
//!   the free slots (dynamic thresholds, Choudhury and Hahne 1998). So one tenant holds at most
//!   half of all slots. One network holds at most three quarters, for any number of tenants.
//!   Other tenants and networks always find free slots. Within a tenant's share, a network gets a
//!   slot while it holds fewer slots than twice the rest of that share. So an attacker who guesses
//!   passwords of a tenant's users leaves slots for the users' own networks.
//! - **Expensive jobs** run on a part of the threads only. Jobs of other owners and cheap jobs
//!   of the same tenant overtake expensive jobs. Expensive jobs are not refused, because an error
//!   would reveal which user has an expensive hash.
//! - **Turns.** Start-time fair queueing (Goyal 1996), by tenant and by network. The start of a
//!   job is the later of two starts: the start of its tenant and the start of its network. The cost
//!   of the job is added to both. So neither a tenant with many networks nor a network with many
//!   tenants gets more than one share. Among jobs with the same start, the job whose tenant or
//!   network was served less comes first. Idle time gives no credit.

mod jobs;
mod share;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr};

pub(super) use jobs::Ticket;
pub(super) use share::Full;

use crate::{ids::TenantId, limits::Owner};
use jobs::{Jobs, Waiting};
use share::{FairPermits, Share, Usage};

/// Limits of the queue, and the threshold of an expensive job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Number of slots, for waiting and running jobs.
    pub slots: usize,
    /// Maximum number of expensive jobs that run concurrently.
    pub max_expensive_running: usize,
    /// The maximum cost of a cheap job. A job with a higher cost is expensive.
    pub cheap: u64,
}

/// The waiting jobs, and the slots in use.
pub(super) struct Queue<J> {
    bounds: Bounds,
    taken: usize,
    expensive_running: usize,
    /// The virtual time of the fair queueing, in units of cost: the start of the last job that
    /// [`Queue::next`] returned. The virtual time never decreases.
    clock: u64,
    tickets: u64,
    tenants: FairPermits<TenantId>,
    networks: FairPermits<Option<IpAddr>>,
    /// The shares of each tenant within each network.
    both: FairPermits<Owner>,
    /// The waiting jobs, by owner. Owners without jobs have no entry.
    waiting: HashMap<Owner, Jobs<J>>,
}

/// A job that a thread must run now.
pub(super) struct Turn<J> {
    pub job: J,
    /// The value to pass to [`Queue::ended`].
    pub kind: Kind,
}

/// The owner of a job, and whether the job is expensive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub owner: Owner,
    pub expensive: bool,
}

impl<J> Queue<J> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            taken: 0,
            expensive_running: 0,
            clock: 0,
            tickets: 0,
            tenants: FairPermits::default(),
            networks: FairPermits::default(),
            both: FairPermits::default(),
            waiting: HashMap::new(),
        }
    }

    /// Checks whether the owner can take a slot.
    pub(super) fn room(&self, owner: Owner) -> Result<(), Full> {
        let free = self.bounds.slots.saturating_sub(self.taken);
        let (tenant, network) = self.shares(owner);
        let both = self.both.get(&owner).slots;
        Usage { free, tenant: tenant.slots, network: network.slots, both }.room()
    }

    /// Takes a slot, if [`Queue::room`] allows it.
    pub(super) fn take(&mut self, owner: Owner) -> Result<(), Full> {
        self.room(owner)?;
        self.taken += 1;
        for share in self.shares_mut(owner) {
            share.slots += 1;
        }
        Ok(())
    }

    /// Returns a slot.
    pub(super) fn release(&mut self, owner: Owner) {
        self.taken = self.taken.saturating_sub(1);
        for share in self.shares_mut(owner) {
            share.slots = share.slots.saturating_sub(1);
        }
        self.forget();
    }

    /// Number of slots in use.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Number of waiting jobs.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(Jobs::len).sum()
    }

    /// Adds a job after the owner's other jobs. The owner must hold a slot for the job.
    pub(super) fn push(&mut self, owner: Owner, cost: u64, job: J) -> Ticket {
        let expensive = cost > self.bounds.cheap;
        self.count(owner);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let waiting = Waiting { ticket, cost: cost.max(1), job };
        self.waiting.entry(owner).or_default().push(expensive, waiting);
        ticket
    }

    /// Removes a cancelled job, if the job still waits.
    pub(super) fn remove(&mut self, owner: Owner, ticket: Ticket) -> Option<J> {
        let job = self.waiting.get_mut(&owner)?.remove(ticket)?;
        self.drop_empty(owner);
        self.uncount(owner);
        Some(job)
    }

    /// Takes the next job; `None` when no waiting job may run now.
    pub(super) fn next(&mut self) -> Option<Turn<J>> {
        let turn = |(owner, jobs): (&Owner, &Jobs<J>)| self.turn(*owner, jobs);
        let (order, kind) = self.waiting.iter().filter_map(turn).min_by_key(|(order, _)| *order)?;
        let Kind { owner, expensive } = kind;
        let Waiting { cost, job, .. } = self.waiting.get_mut(&owner)?.pop(expensive)?;
        self.drop_empty(owner);
        self.clock = order.start;
        for share in self.shares_mut(owner) {
            share.start = order.start.saturating_add(cost);
            share.last_expensive = expensive;
        }
        self.expensive_running += usize::from(expensive);
        Some(Turn { job, kind })
    }

    /// Records the end of a job that [`Queue::next`] returned.
    pub(super) fn ended(&mut self, kind: Kind) {
        self.expensive_running -= usize::from(kind.expensive).min(self.expensive_running);
        self.uncount(kind.owner);
    }

    /// The order and the kind of an owner's next job.
    fn turn(&self, owner: Owner, jobs: &Jobs<J>) -> Option<(Order, Kind)> {
        let (tenant, network) = self.shares(owner);
        let may_be_expensive = self.expensive_running < self.bounds.max_expensive_running;
        let (expensive, ticket) = jobs.head(may_be_expensive, tenant.last_expensive)?;
        // Idle time gives no credit: a start is never before the virtual time.
        let [tenant_start, network_start] =
            [tenant, network].map(|share| share.start.max(self.clock));
        let order = Order {
            start: tenant_start.max(network_start),
            expensive_again: expensive && tenant.last_expensive,
            other_start: tenant_start.min(network_start),
            ticket,
        };
        Some((order, Kind { owner, expensive }))
    }

    fn count(&mut self, owner: Owner) {
        for share in self.shares_mut(owner) {
            share.jobs += 1;
        }
    }

    fn uncount(&mut self, owner: Owner) {
        for share in self.shares_mut(owner) {
            share.jobs = share.jobs.saturating_sub(1);
        }
        self.forget();
    }

    fn shares(&self, owner: Owner) -> (Share, Share) {
        (self.tenants.get(&owner.tenant), self.networks.get(&owner.network))
    }

    fn shares_mut(&mut self, owner: Owner) -> [&mut Share; 3] {
        [
            self.tenants.get_mut(owner.tenant),
            self.networks.get_mut(owner.network),
            self.both.get_mut(owner),
        ]
    }

    fn drop_empty(&mut self, owner: Owner) {
        if self.waiting.get(&owner).is_some_and(|jobs| jobs.len() == 0) {
            self.waiting.remove(&owner);
        }
    }

    fn forget(&mut self) {
        let max_entries = 2 * self.bounds.slots;
        self.tenants.forget(self.clock, max_entries);
        self.networks.forget(self.clock, max_entries);
        self.both.forget(self.clock, max_entries);
    }
}

/// The order of the next jobs. The job with the least value runs first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    start: u64,
    /// Whether both this job and the tenant's last job are expensive.
    expensive_again: bool,
    /// The earlier of the starts of tenant and network, which belongs to the less served of both.
    other_start: u64,
    ticket: Ticket,
}
