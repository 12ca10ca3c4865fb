//! The queue of the hashing threads, without the threads: fair between tenants and
//! bounded.
//!
//! - **Places.** Who wants to hash takes a place first. A tenant gets one while it has
//!   fewer than are free (dynamic thresholds, Choudhury and Hahne 1998). So one tenant gets
//!   half of all places at most, two get a third each, and others still find some.
//! - **Turns.** Start-time fair queueing (Goyal 1996): the tenant that was served the least
//!   is next, counted in the cost of its jobs. A tenant that was away gains nothing by it.
//! - **Expensive jobs** run on a part of the threads only. The jobs of others, and the
//!   cheap jobs of the same tenant, pass them.

use std::collections::{HashMap, VecDeque};

use crate::ids::TenantId;

/// Which jobs are expensive, and how many places and expensive jobs there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Places, taken by those who wait and those who are served.
    pub places: usize,
    /// Expensive jobs that run at once.
    pub expensive_at_once: usize,
    /// The cost above which a job is expensive.
    pub cheap: u64,
}

/// Jobs that wait, and the places that are taken.
pub(super) struct Queue<J> {
    bounds: Bounds,
    taken: usize,
    expensive_running: usize,
    /// The start of the job that was handed out last, in units of cost. It never goes back.
    clock: u64,
    tickets: u64,
    tenants: HashMap<TenantId, Tenant<J>>,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// All places are taken.
    All,
    /// The tenant has its share.
    OfTenant,
}

/// Names a job that waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket(u64);

/// A job whose turn it is.
pub(super) struct Turn<J> {
    pub job: J,
    /// To be handed to [`Queue::ended`].
    pub expensive: bool,
}

struct Tenant<J> {
    taken: usize,
    /// When its next job may start, by the queue's clock.
    start: u64,
    cheap: VecDeque<Waiting<J>>,
    expensive: VecDeque<Waiting<J>>,
    /// Whether its last job was expensive: then a cheap one is next.
    last_expensive: bool,
}

struct Waiting<J> {
    ticket: Ticket,
    cost: u64,
    job: J,
}

impl<J> Queue<J> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            taken: 0,
            expensive_running: 0,
            clock: 0,
            tickets: 0,
            tenants: HashMap::new(),
        }
    }

    /// Whether there is a place for a tenant.
    pub(super) fn room(&self, tenant: TenantId) -> Result<(), Full> {
        let free = self.bounds.places.saturating_sub(self.taken);
        let of_tenant = self.tenants.get(&tenant).map_or(0, |tenant| tenant.taken);
        if free == 0 {
            return Err(Full::All);
        }
        if of_tenant >= free { Err(Full::OfTenant) } else { Ok(()) }
    }

    /// Takes a place for a tenant.
    pub(super) fn take(&mut self, tenant: TenantId) -> Result<(), Full> {
        self.room(tenant)?;
        self.tenant(tenant).taken += 1;
        self.taken += 1;
        Ok(())
    }

    /// Gives a place back.
    pub(super) fn release(&mut self, tenant: TenantId) {
        self.taken = self.taken.saturating_sub(1);
        let tenant = self.tenant(tenant);
        tenant.taken = tenant.taken.saturating_sub(1);
        self.forget();
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Jobs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.cheap.len() + tenant.expensive.len()).sum()
    }

    /// Puts a job of a tenant that has a place for it behind its others.
    pub(super) fn push(&mut self, tenant: TenantId, cost: u64, job: J) -> Ticket {
        self.tickets += 1;
        let waiting = Waiting { ticket: Ticket(self.tickets), cost: cost.max(1), job };
        let ticket = waiting.ticket;
        let expensive = cost > self.bounds.cheap;
        let tenant = self.tenant(tenant);
        if expensive { &mut tenant.expensive } else { &mut tenant.cheap }.push_back(waiting);
        ticket
    }

    /// Takes out a job that nobody waits for any more, if it still waits.
    pub(super) fn remove(&mut self, tenant: TenantId, ticket: Ticket) -> Option<J> {
        let tenant = self.tenants.get_mut(&tenant)?;
        [&mut tenant.cheap, &mut tenant.expensive].into_iter().find_map(|jobs| {
            // Jobs are in the order of their tickets.
            let at = jobs.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()?;
            jobs.remove(at).map(|waiting| waiting.job)
        })
    }

    /// The job whose turn it is; `None` when none waits that may run now.
    pub(super) fn next(&mut self) -> Option<Turn<J>> {
        let may_be_expensive = self.expensive_running < self.bounds.expensive_at_once;
        let clock = self.clock;
        let turn = |(id, tenant): (&TenantId, &Tenant<J>)| {
            let (expensive, ticket) = tenant.head(may_be_expensive)?;
            // Time in which a tenant's jobs could not run is no credit.
            Some((tenant.start.max(clock), ticket, *id, expensive))
        };
        let (start, _, id, expensive) = self.tenants.iter().filter_map(turn).min()?;
        let tenant = self.tenant(id);
        let jobs = if expensive { &mut tenant.expensive } else { &mut tenant.cheap };
        let Waiting { cost, job, .. } = jobs.pop_front()?;
        tenant.start = start.saturating_add(cost);
        tenant.last_expensive = expensive;
        self.clock = start;
        self.expensive_running += usize::from(expensive);
        Some(Turn { job, expensive })
    }

    /// A job that was handed out has ended.
    pub(super) fn ended(&mut self, expensive: bool) {
        self.expensive_running -= usize::from(expensive).min(self.expensive_running);
    }

    fn tenant(&mut self, tenant: TenantId) -> &mut Tenant<J> {
        self.tenants.entry(tenant).or_default()
    }

    /// Forgets tenants without a place, but for those that were served ahead of others: as
    /// many of them as there are places.
    fn forget(&mut self) {
        let clock = self.clock;
        self.tenants.retain(|_, tenant| tenant.taken > 0 || tenant.start > clock);
        if self.tenants.len() > 2 * self.bounds.places {
            self.tenants.retain(|_, tenant| tenant.taken > 0);
        }
    }
}

impl<J> Default for Tenant<J> {
    fn default() -> Self {
        Self {
            taken: 0,
            start: 0,
            cheap: VecDeque::new(),
            expensive: VecDeque::new(),
            last_expensive: false,
        }
    }
}

impl<J> Tenant<J> {
    /// Whether its next job is expensive, and its ticket: the one that waits longest, but
    /// two expensive jobs do not follow each other while a cheap one waits.
    fn head(&self, may_be_expensive: bool) -> Option<(bool, Ticket)> {
        let ticket = |jobs: &VecDeque<Waiting<J>>| jobs.front().map(|waiting| waiting.ticket);
        let cheap = ticket(&self.cheap).map(|ticket| (false, ticket));
        let expensive = ticket(&self.expensive).filter(|_| may_be_expensive);
        match (cheap, expensive.map(|ticket| (true, ticket))) {
            (Some(cheap), Some(expensive)) if self.last_expensive || cheap.1 < expensive.1 => {
                Some(cheap)
            }
            (cheap, None) => cheap,
            (_, expensive) => expensive,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const CHEAP: u64 = 40;
    const EXPENSIVE: u64 = 370;

    fn queue<J>(places: usize, expensive_at_once: usize) -> Queue<J> {
        Queue::new(Bounds { places, expensive_at_once, cheap: CHEAP })
    }

    fn tenant(number: u8) -> TenantId {
        TenantId(Uuid::from_u128(number.into()))
    }

    #[test]
    fn one_tenant_gets_half_of_the_places_and_more_of_them_leave_some_too() {
        for tenants in 1..=8 {
            let mut queue = queue::<()>(130, 1);
            while (0..tenants).filter(|&number| queue.take(tenant(number)).is_ok()).count() > 0 {}
            let of = |number: u8| queue.tenants[&tenant(number)].taken;
            let share = 130 / (usize::from(tenants) + 1);
            assert!((0..tenants).all(|number| of(number) >= share && of(number) <= share + 1));
            assert_eq!(queue.take(tenant(0)), Err(Full::OfTenant));
            assert_eq!(queue.take(tenant(99)), Ok(()), "another finds one");
        }
    }

    #[test]
    fn jobs_that_nobody_waits_for_are_taken_out() {
        let mut queue = queue(4, 1);
        let [first, second] = [CHEAP, EXPENSIVE].map(|cost| queue.push(tenant(1), cost, cost));
        assert_eq!(queue.remove(tenant(1), first), Some(CHEAP));
        assert_eq!(queue.next().map(|turn| turn.job), Some(EXPENSIVE));
        assert_eq!(queue.remove(tenant(1), second), None);
        assert_eq!(queue.waiting(), 0);
    }

    /// N12: one thread, and a cheap job behind a wall of the same tenant's expensive ones.
    #[test]
    fn a_cheap_job_waits_for_one_expensive_job_of_its_tenant_at_most() {
        let mut queue = queue(100, 1);
        for _ in 0..10 {
            queue.push(tenant(1), EXPENSIVE, EXPENSIVE);
        }
        queue.push(tenant(1), CHEAP, CHEAP);
        let mut turns = std::iter::from_fn(|| {
            let turn = queue.next()?;
            queue.ended(turn.expensive);
            Some(turn.job)
        });
        assert_eq!(turns.next(), Some(EXPENSIVE));
        assert_eq!(turns.next(), Some(CHEAP));
        assert_eq!(turns.count(), 9);
    }

    /// What each tenant gets of threads that are never idle: each keeps so many jobs of
    /// these costs waiting.
    fn simulate(threads: usize, loads: &[(u8, &[u64], usize)], until: u64) -> BTreeMap<u8, u64> {
        let mut queue = queue(1000, (threads / 2).max(1));
        let mut next = BTreeMap::new();
        let mut push = |queue: &mut Queue<(u8, u64)>, number: u8, costs: &[u64]| {
            let at: &mut usize = next.entry(number).or_default();
            let cost = costs[*at % costs.len()];
            *at += 1;
            queue.push(tenant(number), cost, (number, cost));
        };
        for &(number, costs, waiting) in loads {
            (0..waiting).for_each(|_| push(&mut queue, number, costs));
        }
        let mut served = BTreeMap::new();
        let mut running: Vec<(u64, bool, u8)> = Vec::new();
        let mut now = 0;
        while now < until {
            while running.len() < threads
                && let Some(Turn { job: (number, cost), expensive }) = queue.next()
            {
                *served.entry(number).or_default() += cost;
                running.push((now + cost, expensive, number));
            }
            running.sort_unstable();
            let (ends, expensive, number) = running.remove(0);
            now = ends;
            queue.ended(expensive);
            let (_, costs, _) = loads.iter().find(|load| load.0 == number).expect("its load");
            push(&mut queue, number, costs);
        }
        served
    }

    /// N12
    #[test]
    fn a_flood_of_expensive_jobs_leaves_another_tenant_its_share_of_the_threads() {
        for threads in [1, 2, 4, 8] {
            let loads: &[(u8, &[u64], usize)] =
                &[(1, &[EXPENSIVE, CHEAP], 400), (2, &[CHEAP], 2 * threads)];
            let served = simulate(threads, loads, 100_000);
            let (flood, other) = (served[&1], served[&2]);
            assert!(other * 100 >= (flood + other) * 45, "{threads}: {flood} against {other}");
        }
    }

    #[test]
    fn one_tenant_alone_has_all_threads_for_cheap_jobs() {
        let served = simulate(4, &[(1, &[CHEAP], 8)], 10_000);
        assert!(served[&1] >= 4 * 10_000, "{served:?}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u8),
        Push(u8, u64),
        Next,
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        let cost = prop_oneof![Just(CHEAP), Just(1), Just(EXPENSIVE), 1..2 * EXPENSIVE];
        prop_oneof![
            (0..6_u8).prop_map(Step::Take),
            (0..6_u8, cost).prop_map(|(tenant, cost)| Step::Push(tenant, cost)),
            Just(Step::Next),
            Just(Step::End),
        ]
    }

    proptest! {
        /// N12: the bounds hold, a thread is idle only when nothing may run, and a job is
        /// passed by no more of another tenant's work than is fair.
        #[test]
        fn bounds_hold_and_nobody_starves(
            steps in proptest::collection::vec(step(), 1..400),
            places in 1..20_usize,
            expensive_at_once in 1..4_usize,
        ) {
            let mut queue = queue(places, expensive_at_once);
            let (mut free, mut running) = (BTreeMap::<u8, usize>::new(), Vec::new());
            // Of each cheap job that waits: the work of others that passed it.
            let mut passed = BTreeMap::<(u8, usize), BTreeMap<u8, u64>>::new();
            for (at, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Take(number) => {
                        let before = queue.taken();
                        if queue.take(tenant(number)).is_ok() {
                            *free.entry(number).or_default() += 1;
                            let of_tenant = queue.tenants[&tenant(number)].taken;
                            prop_assert!(of_tenant <= places.div_ceil(2));
                        } else {
                            prop_assert_eq!(queue.taken(), before);
                        }
                    }
                    Step::Push(number, cost) => {
                        let Some(free) = free.get_mut(&number).filter(|free| **free > 0) else {
                            continue;
                        };
                        *free -= 1;
                        queue.push(tenant(number), cost, (number, at, cost));
                        if cost <= CHEAP {
                            passed.insert((number, at), BTreeMap::new());
                        }
                    }
                    Step::Next => {
                        if let Some(Turn { job: (number, at, cost), expensive }) = queue.next() {
                            prop_assert_eq!(expensive, cost > CHEAP);
                            running.push((number, expensive));
                            passed.remove(&(number, at));
                            for ((waits, _), by) in &mut passed {
                                if *waits != number {
                                    *by.entry(number).or_default() += cost;
                                }
                            }
                        } else {
                            let waits = queue.tenants.values().any(|t| !t.cheap.is_empty());
                            prop_assert!(!waits, "a cheap job waits beside an idle thread");
                            let full = queue.expensive_running == expensive_at_once;
                            prop_assert!(full || queue.waiting() == 0);
                        }
                    }
                    Step::End if running.is_empty() => {}
                    Step::End => {
                        let (number, expensive) = running.swap_remove(at % running.len());
                        queue.ended(expensive);
                        queue.release(tenant(number));
                    }
                }
                prop_assert!(queue.taken() <= places);
                prop_assert!(queue.waiting() <= queue.taken());
                prop_assert!(queue.expensive_running <= expensive_at_once);
                prop_assert!(queue.tenants.len() <= 3 * places + 6);
                let own = u64::try_from(places).expect("few") * 2 * EXPENSIVE;
                for by in passed.values().flat_map(BTreeMap::values) {
                    // What its own tenant has before it, and one job more.
                    prop_assert!(*by <= own + 4 * EXPENSIVE, "passed by {by}");
                }
            }
        }
    }
}
