//! The queue of the hashing threads, without the threads: fair between tenants and between
//! networks, and bounded.
//!
//! - **Slots.** Who wants to hash takes a slot first. A tenant gets one while it has
//!   fewer than are free, a network while it has fewer than three times those (dynamic
//!   thresholds, Choudhury and Hahne 1998). So one tenant gets half of all slots at most,
//!   one network three quarters, however many tenants it has, and others still find some.
//!   Of a tenant's share a network gets one while it has fewer than twice what is left of
//!   it: who guesses at a tenant's users leaves some to their own networks.
//! - **Expensive jobs** run on a part of the threads only. The jobs of others, and the cheap
//!   jobs of the same tenant, pass them. They are not refused: an error would tell whose hash
//!   is expensive.
//! - **Turns.** Start-time fair queueing (Goyal 1996) by tenant and by network: a job's
//!   start is the later of theirs, and its cost counts for both. So neither a tenant with
//!   many networks nor a network with many tenants gets more than one share. Of several
//!   that may start, the one whose tenant or network was served less is first. Who was
//!   away gains nothing by it.

mod jobs;
mod share;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr};

pub(super) use jobs::Ticket;
pub(super) use share::Full;

use crate::{ids::TenantId, limits::Owner};
use jobs::{Jobs, Waiting};
use share::{Share, Shares, Usage};

/// Which jobs are expensive, and how many slots and expensive jobs there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Slots, taken by those who wait and those who are served.
    pub slots: usize,
    /// Expensive jobs that run at once.
    pub expensive_at_once: usize,
    /// The cost above which a job is expensive.
    pub cheap: u64,
}

/// Jobs that wait, and the slots that are taken.
pub(super) struct Queue<J> {
    bounds: Bounds,
    taken: usize,
    expensive_running: usize,
    /// The start of the job that was handed out last, in units of cost. It never goes back.
    clock: u64,
    tickets: u64,
    tenants: Shares<TenantId>,
    networks: Shares<Option<IpAddr>>,
    /// Of each tenant from each network.
    both: Shares<Owner>,
    /// Of those that have any.
    waiting: HashMap<Owner, Jobs<J>>,
}

/// A job whose turn it is.
pub(super) struct Turn<J> {
    pub job: J,
    /// To be handed to [`Queue::ended`].
    pub kind: Kind,
}

/// Whose a job is, and whether it is expensive.
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
            tenants: Shares::default(),
            networks: Shares::default(),
            both: Shares::default(),
            waiting: HashMap::new(),
        }
    }

    /// Whether there is a slot.
    pub(super) fn room(&self, owner: Owner) -> Result<(), Full> {
        let free = self.bounds.slots.saturating_sub(self.taken);
        let (tenant, network) = self.shares(owner);
        let both = self.both.get(&owner).slots;
        Usage { free, tenant: tenant.slots, network: network.slots, both }.room()
    }

    /// Takes a slot.
    pub(super) fn take(&mut self, owner: Owner) -> Result<(), Full> {
        self.room(owner)?;
        self.taken += 1;
        for share in self.shares_mut(owner) {
            share.slots += 1;
        }
        Ok(())
    }

    /// Gives a slot back.
    pub(super) fn release(&mut self, owner: Owner) {
        self.taken = self.taken.saturating_sub(1);
        for share in self.shares_mut(owner) {
            share.slots = share.slots.saturating_sub(1);
        }
        self.forget();
    }

    /// Slots that are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Jobs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(Jobs::len).sum()
    }

    /// Puts a job of somebody who has a slot for it behind its owner's others.
    pub(super) fn push(&mut self, owner: Owner, cost: u64, job: J) -> Ticket {
        let expensive = cost > self.bounds.cheap;
        self.count(owner);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let waiting = Waiting { ticket, cost: cost.max(1), job };
        self.waiting.entry(owner).or_default().push(expensive, waiting);
        ticket
    }

    /// Takes out a job that nobody waits for any more, if it still waits.
    pub(super) fn remove(&mut self, owner: Owner, ticket: Ticket) -> Option<J> {
        let job = self.waiting.get_mut(&owner)?.remove(ticket)?;
        self.drop_empty(owner);
        self.uncount(owner);
        Some(job)
    }

    /// The job whose turn it is; `None` when none waits that may run now.
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

    /// A job that was handed out has ended.
    pub(super) fn ended(&mut self, kind: Kind) {
        self.expensive_running -= usize::from(kind.expensive).min(self.expensive_running);
        self.uncount(kind.owner);
    }

    /// When an owner's next job comes, and of which kind it is.
    fn turn(&self, owner: Owner, jobs: &Jobs<J>) -> Option<(Order, Kind)> {
        let (tenant, network) = self.shares(owner);
        let may_be_expensive = self.expensive_running < self.bounds.expensive_at_once;
        let (expensive, ticket) = jobs.head(may_be_expensive, tenant.last_expensive)?;
        // Time in which jobs could not run is no credit.
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
        let most = 2 * self.bounds.slots;
        self.tenants.forget(self.clock, most);
        self.networks.forget(self.clock, most);
        self.both.forget(self.clock, most);
    }
}

/// Who is next: the least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    start: u64,
    /// Whether a tenant's expensive job would follow another of its own.
    expensive_again: bool,
    /// The start of the one, tenant or network, that was served less.
    other_start: u64,
    ticket: Ticket,
}
