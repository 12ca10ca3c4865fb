use std::{collections::BTreeMap, net::Ipv4Addr};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const CHEAP: u64 = 40;
const EXPENSIVE: u64 = 370;

/// The number of slots with the default settings and two threads.
const SLOTS: usize = 130;

fn queue<J>(slots: usize, max_expensive_running: usize) -> Queue<J> {
    Queue::new(Bounds { slots, max_expensive_running, cheap: CHEAP })
}

/// The owner with tenant number `tenant` and network number `network`.
fn owner(tenant: u8, network: u8) -> Owner {
    let network = Ipv4Addr::new(192, 0, 2, network);
    Owner { tenant: TenantId(Uuid::from_u128(tenant.into())), network: Some(network.into()) }
}

/// A tenant with a network of its own.
fn alone(tenant: u8) -> Owner {
    owner(tenant, tenant)
}

fn tenants_slots<J>(queue: &Queue<J>, tenant: u8) -> usize {
    queue.tenants.get(&alone(tenant).tenant).slots
}

#[test]
fn tenants_share_the_slots_and_leave_a_slot_for_another_tenant() {
    for tenants in 1..=8 {
        let mut queue = queue::<()>(SLOTS, 1);
        while (0..tenants).filter(|&number| queue.take(alone(number)).is_ok()).count() > 0 {}
        // A tenant that calls from one network gets slightly fewer slots than from many networks.
        let share = 2 * SLOTS / (2 * usize::from(tenants) + 3);
        for number in 0..tenants {
            let slots = tenants_slots(&queue, number);
            assert!(slots >= share && slots <= share + 1, "{slots} of {tenants}");
        }
        assert_eq!(queue.take(alone(0)), Err(Full::OfNetwork));
        assert_eq!(queue.take(alone(99)), Ok(()), "another tenant finds a slot");
    }
}

/// N12: one network never holds all slots. An attacker can register any number of tenants.
#[test]
fn one_network_leaves_a_quarter_of_the_slots_for_any_number_of_its_tenants() {
    let mut queue = queue::<()>(SLOTS, 1);
    let in_network = |tenant| owner(tenant, 1);
    while (0..150).filter(|&tenant| queue.take(in_network(tenant)).is_ok()).count() > 0 {}
    assert!(queue.taken() <= (SLOTS * 3).div_ceil(4), "{}", queue.taken());
    assert_eq!(queue.take(in_network(151)), Err(Full::OfNetwork));
    let other_slots = (0..SLOTS).take_while(|_| queue.take(owner(200, 2)).is_ok()).count();
    assert!(
        other_slots >= SLOTS / 10,
        "another network gets its share of the free slots: {other_slots}"
    );
}

/// N12: guesses at one tenant leave slots for its users. An attacker chooses the tenant, but not
/// the networks of the tenant's users.
#[test]
fn guesses_from_some_networks_leave_slots_for_users_in_other_networks() {
    for networks in [1, 12] {
        let mut queue = queue::<()>(SLOTS, 1);
        while (0..networks).filter(|&network| queue.take(owner(1, network)).is_ok()).count() > 0 {}
        let slots = tenants_slots(&queue, 1);
        assert!((SLOTS * 2 / 5..=SLOTS / 2).contains(&slots), "{slots}");
        assert_eq!(queue.take(owner(1, 99)), Ok(()), "the users' own network finds a slot");
    }
}

/// N12: expensive jobs of many tenants, from one network or from many, do not delay a new tenant.
#[test]
fn a_new_tenant_finds_a_slot_and_its_job_overtakes_expensive_jobs() {
    for network in [(|tenant| tenant) as fn(u8) -> u8, |_| 1] {
        let mut queue = queue(SLOTS, 1);
        for tenant in 0..60 {
            let owner = owner(tenant, network(tenant));
            queue.take(owner).expect("no slot is free");
            queue.push(owner, EXPENSIVE, EXPENSIVE);
        }
        while queue.next().is_some() {}
        queue.take(alone(201)).expect("no slot is free");
        queue.push(alone(201), CHEAP, CHEAP);
        assert_eq!(queue.next().map(|turn| turn.job), Some(CHEAP));
    }
}

#[test]
fn cancelled_jobs_are_removed_from_the_queue() {
    let mut queue = queue(4, 1);
    let [first, second] = [CHEAP, EXPENSIVE].map(|cost| queue.push(alone(1), cost, cost));
    assert_eq!(queue.remove(alone(1), first), Some(CHEAP));
    assert_eq!(queue.next().map(|turn| turn.job), Some(EXPENSIVE));
    assert_eq!(queue.remove(alone(1), second), None);
    assert_eq!(queue.waiting(), 0);
}

/// N12: with one thread, a cheap job overtakes many expensive jobs of the same tenant, from the
/// same network or from other networks.
#[test]
fn a_cheap_job_waits_for_one_expensive_job_of_its_tenant_at_most() {
    for network in [(|_| 1) as fn(u8) -> u8, |number| number] {
        let mut queue = queue(100, 1);
        for number in 0..10 {
            queue.push(owner(1, network(number)), EXPENSIVE, EXPENSIVE);
        }
        queue.push(owner(1, 1), CHEAP, CHEAP);
        let mut turns = std::iter::from_fn(|| {
            let turn = queue.next()?;
            queue.ended(turn.kind);
            Some(turn.job)
        });
        assert_eq!(turns.next(), Some(EXPENSIVE));
        assert_eq!(turns.next(), Some(CHEAP));
        assert_eq!(turns.count(), 9);
    }
}

/// A load: each owner keeps `jobs` jobs of these costs in the queue, if the queue accepts the
/// jobs.
#[derive(Clone)]
struct Load {
    owners: Vec<Owner>,
    costs: &'static [u64],
    jobs: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Measured {
    /// Thread time that the load got.
    time: u64,
    /// Number of jobs that were refused a slot.
    refused: usize,
}

/// Simulates threads that are never idle, and measures the thread time of each load.
struct Simulation<'a> {
    queue: Queue<(usize, Owner, u64)>,
    loads: &'a [Load],
    measured: Vec<Measured>,
    in_queue: HashMap<(usize, Owner), usize>,
    pushed: usize,
}

impl Simulation<'_> {
    fn run(threads: usize, loads: &[Load], end_time: u64) -> Vec<Measured> {
        let mut simulation = Simulation {
            queue: queue(SLOTS, (threads / 2).max(1)),
            loads,
            measured: vec![Measured::default(); loads.len()],
            in_queue: HashMap::new(),
            pushed: 0,
        };
        let (mut running, mut now) = (Vec::new(), 0);
        while now < end_time {
            simulation.refill();
            while running.len() < threads
                && let Some(Turn { job: (load, owner, cost), kind }) = simulation.queue.next()
            {
                simulation.measured[load].time += cost;
                running.push((now + cost, load, owner, kind));
            }
            running.sort_unstable_by_key(|(end, ..)| *end);
            let (end, load, owner, kind) = running.remove(0);
            now = end;
            simulation.queue.ended(kind);
            simulation.queue.release(owner);
            *simulation.in_queue.entry((load, owner)).or_default() -= 1;
        }
        simulation.measured
    }

    /// Fills the queue up to each load's number of jobs, in the order of the loads.
    fn refill(&mut self) {
        for (number, load) in self.loads.iter().enumerate() {
            for &owner in &load.owners {
                while self.in_queue.get(&(number, owner)).is_none_or(|jobs| *jobs < load.jobs) {
                    self.pushed += 1;
                    let cost = load.costs[self.pushed % load.costs.len()];
                    if !self.try_to_push(number, owner, cost) {
                        self.measured[number].refused += 1;
                        break;
                    }
                    *self.in_queue.entry((number, owner)).or_default() += 1;
                }
            }
        }
    }

    fn try_to_push(&mut self, load: usize, owner: Owner, cost: u64) -> bool {
        if self.queue.take(owner).is_err() {
            return false;
        }
        self.queue.push(owner, cost, (load, owner, cost));
        true
    }
}

/// Asserts that during a flood another tenant, in a network of its own, is never refused and
/// gets at least 45 % of the threads' time.
fn assert_flood_leaves_half(flood: &[Owner]) {
    for threads in [1, 2, 4, 8] {
        for costs in [&[EXPENSIVE] as &[u64], &[CHEAP], &[EXPENSIVE, CHEAP]] {
            let flood = Load { owners: flood.to_vec(), costs, jobs: 400 };
            let other = Load { owners: vec![alone(200)], costs: &[CHEAP], jobs: threads + 4 };
            let measured = Simulation::run(threads, &[flood, other], 20_000);
            let [flood, other] = [measured[0], measured[1]];
            assert!(flood.refused > 0, "the flood does not fill the queue");
            assert_eq!(other.refused, 0, "{threads}, {costs:?}");
            let all = flood.time + other.time;
            assert!(other.time * 100 >= all * 45, "{threads}, {costs:?}: {flood:?}, {other:?}");
        }
    }
}

/// N12: one tenant cannot take the share of another tenant.
#[test]
fn a_flood_of_one_tenant_leaves_another_its_share() {
    assert_flood_leaves_half(&[alone(1)]);
}

/// N12: many tenants in one network get one share. Tenants are free to create, addresses are not.
#[test]
fn a_flood_of_many_tenants_from_one_network_leaves_another_its_share() {
    let flood: Vec<_> = (0..150).map(|tenant| owner(tenant, 1)).collect();
    assert_flood_leaves_half(&flood);
}

/// N12: one tenant with many networks gets one share.
#[test]
fn a_flood_of_one_tenant_from_many_networks_leaves_another_its_share() {
    let flood: Vec<_> = (0..12).map(|network| owner(1, network)).collect();
    assert_flood_leaves_half(&flood);
}

/// N12: guesses from one network take at most about half of the tenant's turns from users who
/// sign in from another network.
#[test]
fn two_networks_of_a_tenant_share_its_turns() {
    let flood = Load { owners: vec![owner(1, 1)], costs: &[CHEAP], jobs: 400 };
    let users = Load { owners: vec![owner(1, 2)], costs: &[CHEAP], jobs: 4 };
    let measured = Simulation::run(2, &[users, flood], 20_000);
    assert!(measured[0].time * 100 >= (measured[0].time + measured[1].time) * 45, "{measured:?}");
}

#[test]
fn one_tenant_alone_uses_all_threads_for_cheap_jobs() {
    let load = Load { owners: vec![alone(1)], costs: &[CHEAP], jobs: 8 };
    let measured = Simulation::run(4, &[load], 10_000);
    assert!(measured[0].time >= 4 * 10_000, "{measured:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Take(u8, u8),
    Push(u8, u8, u64),
    Next,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    let cost = prop_oneof![Just(CHEAP), Just(1), Just(EXPENSIVE), 1..2 * EXPENSIVE];
    prop_oneof![
        (0..6_u8, 0..4_u8).prop_map(|(tenant, network)| Step::Take(tenant, network)),
        (0..6_u8, 0..4_u8, cost)
            .prop_map(|(tenant, network, cost)| Step::Push(tenant, network, cost)),
        Just(Step::Next),
        Just(Step::End),
    ]
}

/// The cost of the jobs that overtook a waiting job, by their tenant and by their network.
#[derive(Default)]
struct Overtaking {
    tenants: HashMap<TenantId, u64>,
    networks: HashMap<Option<IpAddr>, u64>,
}

proptest! {
    /// N12: the bounds hold. A thread is idle only when no job may run. A cheap job is overtaken
    /// only by a bounded amount of work of another tenant in another network.
    #[test]
    fn the_bounds_hold_and_no_job_starves(
        steps in proptest::collection::vec(step(), 1..400),
        slots in 1..20_usize,
        max_expensive_running in 1..4_usize,
    ) {
        let mut queue = queue(slots, max_expensive_running);
        let (mut free, mut running) = (BTreeMap::<(u8, u8), usize>::new(), Vec::new());
        // For each waiting cheap job, the cost of the jobs of other owners that overtook this job.
        let mut overtaking = HashMap::<(Owner, usize), Overtaking>::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(tenant, network) => {
                    let (before, owner) = (queue.taken(), owner(tenant, network));
                    if queue.take(owner).is_ok() {
                        *free.entry((tenant, network)).or_default() += 1;
                        let (tenant_share, network_share) = queue.shares(owner);
                        prop_assert!(tenant_share.slots <= slots.div_ceil(2));
                        prop_assert!(network_share.slots <= (3 * slots).div_ceil(4));
                    } else {
                        prop_assert_eq!(queue.taken(), before);
                    }
                }
                Step::Push(tenant, network, cost) => {
                    let key = (tenant, network);
                    let Some(free) = free.get_mut(&key).filter(|free| **free > 0) else {
                        continue;
                    };
                    let owner = owner(tenant, network);
                    queue.push(owner, cost, (owner, number, cost));
                    *free -= 1;
                    if cost <= CHEAP {
                        overtaking.insert((owner, number), Overtaking::default());
                    }
                }
                Step::Next => {
                    if let Some(Turn { job: (owner, number, cost), kind }) = queue.next() {
                        prop_assert_eq!((kind.owner, kind.expensive), (owner, cost > CHEAP));
                        running.push(kind);
                        overtaking.remove(&(owner, number));
                        for ((waiting_owner, _), costs) in &mut overtaking {
                            if waiting_owner.tenant != owner.tenant
                                && waiting_owner.network != owner.network
                            {
                                *costs.tenants.entry(owner.tenant).or_default() += cost;
                                *costs.networks.entry(owner.network).or_default() += cost;
                            }
                        }
                    } else {
                        let cheap_job_waits = queue.waiting.values().any(Jobs::has_cheap);
                        prop_assert!(
                            !cheap_job_waits,
                            "a cheap job waits although a thread is idle"
                        );
                        let full = queue.expensive_running == max_expensive_running;
                        prop_assert!(full || queue.waiting() == 0);
                    }
                }
                Step::End if running.is_empty() => {}
                Step::End => {
                    let kind: Kind = running.swap_remove(number % running.len());
                    queue.ended(kind);
                    queue.release(kind.owner);
                }
            }
            prop_assert!(queue.taken() <= slots);
            prop_assert!(queue.waiting() <= queue.taken());
            prop_assert!(queue.expensive_running <= max_expensive_running);
            prop_assert!(queue.tenants.len() <= 3 * slots + 6);
            prop_assert!(queue.networks.len() <= 3 * slots + 6);
            let own_cost = u64::try_from(slots).expect("too many slots") * 2 * EXPENSIVE;
            for costs in overtaking.values() {
                for cost in costs.tenants.values().chain(costs.networks.values()) {
                    // The cost of the jobs that the job's own tenant and network had queued before,
                    // and of one more job.
                    prop_assert!(*cost <= own_cost + 4 * EXPENSIVE, "overtaken by {cost}");
                }
            }
        }
    }
}
