use std::{collections::BTreeMap, net::Ipv4Addr};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// The cost of a cheap job, in milliseconds of thread time: a hash with the default parameters.
const CHEAP: u64 = 40;

/// The cost of an expensive job, in milliseconds of thread time: an imported hash with the maximum
/// cost.
const EXPENSIVE: u64 = 370;

/// The number of slots with the default settings and two threads.
const SLOTS: usize = 130;

fn queue<J>(slots: usize, max_expensive_running: usize) -> Queue<J> {
    Queue::new(Bounds { slots, max_expensive_running, max_cheap_cost: CHEAP })
}

/// The owner with tenant number `tenant` and network number `network`.
fn owner(tenant: u8, network: u8) -> WorkOwner {
    let network = Ipv4Addr::new(192, 0, 2, network);
    WorkOwner { tenant: TenantId(Uuid::from_u128(tenant.into())), network: Some(network.into()) }
}

/// The owner with tenant number `tenant`, in a network that no other tenant uses.
fn own_network_owner(tenant: u8) -> WorkOwner {
    owner(tenant, tenant)
}

fn slots_of_tenant<J>(queue: &Queue<J>, tenant: u8) -> usize {
    queue.tenants.get(&own_network_owner(tenant).tenant).slots
}

#[test]
fn equal_shares_of_tenants_leave_a_slot_for_another_tenant() {
    for tenants in 1..=8 {
        let mut queue = queue::<()>(SLOTS, 1);
        // In each round, each tenant tries to take a slot. The loop ends when no tenant gets one.
        while (0..tenants)
            .filter(|&number| queue.take_slot(own_network_owner(number)).is_ok())
            .count()
            > 0
        {}
        // From one network, a tenant holds at most twice the slots that are left to the tenant:
        // slots = 2 * (free - slots), where free = SLOTS - tenants * slots.
        let expected_slots = 2 * SLOTS / (2 * usize::from(tenants) + 3);
        for number in 0..tenants {
            let slots = slots_of_tenant(&queue, number);
            assert!(slots >= expected_slots && slots <= expected_slots + 1, "{slots} of {tenants}");
        }
        assert_eq!(queue.take_slot(own_network_owner(0)), Err(QueueFull::NetworkShare));
        assert_eq!(queue.take_slot(own_network_owner(99)), Ok(()), "another tenant gets a slot");
    }
}

/// N12: one network never holds all slots. An attacker can register any number of tenants.
#[test]
fn one_network_leaves_a_quarter_of_the_slots_for_any_number_of_its_tenants() {
    let mut queue = queue::<()>(SLOTS, 1);
    let in_network = |tenant| owner(tenant, 1);
    // Rounds in which 150 tenants each try to take a slot, until no tenant gets one.
    while (0..150).filter(|&tenant| queue.take_slot(in_network(tenant)).is_ok()).count() > 0 {}
    assert!(queue.used_slots() <= (SLOTS * 3).div_ceil(4), "{}", queue.used_slots());
    assert_eq!(queue.take_slot(in_network(151)), Err(QueueFull::NetworkShare));
    let other_slots = (0..SLOTS).take_while(|_| queue.take_slot(owner(200, 2)).is_ok()).count();
    // An owner gets two fifths of the free quarter: a tenth of all slots.
    assert!(other_slots >= SLOTS / 10, "another network gets {other_slots} slots");
}

/// N12: guesses at one tenant leave slots for its users. An attacker chooses the tenant, but not
/// the networks of the tenant's users.
#[test]
fn guesses_from_some_networks_leave_slots_for_users_in_other_networks() {
    for networks in [1, 12] {
        let mut queue = queue::<()>(SLOTS, 1);
        // Rounds in which each network tries to take a slot, until no network gets one.
        while (0..networks).filter(|&network| queue.take_slot(owner(1, network)).is_ok()).count()
            > 0
        {}
        let slots = slots_of_tenant(&queue, 1);
        // Two fifths of all slots from one network, up to half of all slots from many networks.
        assert!((SLOTS * 2 / 5..=SLOTS / 2).contains(&slots), "{slots}");
        assert_eq!(
            queue.take_slot(owner(1, 99)),
            Ok(()),
            "another network of the users gets a slot"
        );
    }
}

/// N12: expensive jobs of many tenants, from one network or from many, do not delay a new tenant.
#[test]
fn the_job_of_a_new_tenant_overtakes_expensive_jobs() {
    // Each tenant in its own network, then all tenants in network 1.
    for network_of in [(|tenant| tenant) as fn(u8) -> u8, |_| 1] {
        let mut queue = queue(SLOTS, 1);
        for tenant in 0..60 {
            let owner = owner(tenant, network_of(tenant));
            queue.take_slot(owner).expect("a slot is free");
            queue.push(owner, EXPENSIVE, EXPENSIVE);
        }
        // Start expensive jobs until the maximum number runs.
        while queue.next().is_some() {}
        queue.take_slot(own_network_owner(201)).expect("a slot is free");
        queue.push(own_network_owner(201), CHEAP, CHEAP);
        assert_eq!(queue.next().map(|next_job| next_job.job), Some(CHEAP));
    }
}

#[test]
fn cancelled_jobs_are_removed_from_the_queue() {
    let mut queue = queue(4, 1);
    let [first, second] =
        [CHEAP, EXPENSIVE].map(|cost| queue.push(own_network_owner(1), cost, cost));
    assert_eq!(queue.remove(own_network_owner(1), first), Some(CHEAP));
    assert_eq!(queue.next().map(|next_job| next_job.job), Some(EXPENSIVE));
    assert_eq!(queue.remove(own_network_owner(1), second), None);
    assert_eq!(queue.waiting_count(), 0);
}

/// N12: with one thread, a cheap job overtakes many expensive jobs of the same tenant, from the
/// same network or from other networks.
#[test]
fn a_cheap_job_waits_for_one_expensive_job_of_its_tenant_at_most() {
    // All expensive jobs from network 1, then each from its own network.
    for network_of in [(|_| 1) as fn(u8) -> u8, |number| number] {
        let mut queue = queue(100, 1);
        for number in 0..10 {
            queue.push(owner(1, network_of(number)), EXPENSIVE, EXPENSIVE);
        }
        queue.push(owner(1, 1), CHEAP, CHEAP);
        let mut jobs = std::iter::from_fn(|| {
            let next_job = queue.next()?;
            queue.record_end(next_job.info);
            Some(next_job.job)
        });
        assert_eq!(jobs.next(), Some(EXPENSIVE));
        assert_eq!(jobs.next(), Some(CHEAP));
        assert_eq!(jobs.count(), 9, "the other expensive jobs");
    }
}

/// A load: each owner always has `jobs` jobs of these costs in the queue, unless the queue refuses
/// a slot.
#[derive(Clone)]
struct Load {
    owners: Vec<WorkOwner>,
    costs: &'static [u64],
    jobs: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Measurement {
    /// Thread time that the load got.
    time: u64,
    /// Number of jobs that were refused a slot.
    refused: usize,
}

/// Simulates threads that are never idle, and measures the thread time of each load.
struct Simulation<'a> {
    /// Each job contains the number of its load, its owner and its cost.
    queue: Queue<(usize, WorkOwner, u64)>,
    loads: &'a [Load],
    measurements: Vec<Measurement>,
    /// Number of waiting and running jobs, by load and owner.
    in_queue: HashMap<(usize, WorkOwner), usize>,
    /// Number of jobs that the loads tried to queue. It selects the cost of the next job.
    tried: usize,
}

impl Simulation<'_> {
    fn run(threads: usize, loads: &[Load], end_time: u64) -> Vec<Measurement> {
        let mut simulation = Simulation {
            queue: queue(SLOTS, (threads / 2).max(1)),
            loads,
            measurements: vec![Measurement::default(); loads.len()],
            in_queue: HashMap::new(),
            tried: 0,
        };
        let (mut running, mut now) = (Vec::new(), 0);
        while now < end_time {
            simulation.refill();
            while running.len() < threads
                && let Some(NextJob { job: (load, owner, cost), info }) = simulation.queue.next()
            {
                simulation.measurements[load].time += cost;
                running.push((now + cost, load, owner, info));
            }
            running.sort_unstable_by_key(|(end, ..)| *end);
            let (end, load, owner, info) = running.remove(0);
            now = end;
            simulation.queue.record_end(info);
            simulation.queue.release_slot(owner);
            *simulation.in_queue.entry((load, owner)).or_default() -= 1;
        }
        simulation.measurements
    }

    /// Fills the queue up to each load's number of jobs, in the order of the loads.
    fn refill(&mut self) {
        for (number, load) in self.loads.iter().enumerate() {
            for &owner in &load.owners {
                while self.in_queue.get(&(number, owner)).is_none_or(|jobs| *jobs < load.jobs) {
                    self.tried += 1;
                    let cost = load.costs[self.tried % load.costs.len()];
                    if !self.try_to_push(number, owner, cost) {
                        self.measurements[number].refused += 1;
                        break;
                    }
                    *self.in_queue.entry((number, owner)).or_default() += 1;
                }
            }
        }
    }

    fn try_to_push(&mut self, load: usize, owner: WorkOwner, cost: u64) -> bool {
        if self.queue.take_slot(owner).is_err() {
            return false;
        }
        self.queue.push(owner, cost, (load, owner, cost));
        true
    }
}

/// Asserts that during a flood another tenant in another network is never refused, and gets at
/// least 45 % of the threads' time: half, with a margin.
fn assert_flood_leaves_half(flood: &[WorkOwner]) {
    for threads in [1, 2, 4, 8] {
        for costs in [&[EXPENSIVE] as &[u64], &[CHEAP], &[EXPENSIVE, CHEAP]] {
            // 400 jobs are more than all slots, so the flood always fills the queue.
            let flood = Load { owners: flood.to_vec(), costs, jobs: 400 };
            let other =
                Load { owners: vec![own_network_owner(200)], costs: &[CHEAP], jobs: threads + 4 };
            let measurements = Simulation::run(threads, &[flood, other], 20_000);
            let [flood, other] = [measurements[0], measurements[1]];
            assert!(flood.refused > 0, "the flood fills the queue");
            assert_eq!(other.refused, 0, "{threads}, {costs:?}");
            let total = flood.time + other.time;
            assert!(other.time * 100 >= total * 45, "{threads}, {costs:?}: {flood:?}, {other:?}");
        }
    }
}

/// N12: one tenant cannot take the share of another tenant.
#[test]
fn a_flood_of_one_tenant_leaves_another_tenant_its_share() {
    assert_flood_leaves_half(&[own_network_owner(1)]);
}

/// N12: many tenants in one network get one share. An attacker can create any number of tenants,
/// but has few networks.
#[test]
fn a_flood_of_many_tenants_from_one_network_leaves_another_network_its_share() {
    let flood: Vec<_> = (0..150).map(|tenant| owner(tenant, 1)).collect();
    assert_flood_leaves_half(&flood);
}

/// N12: one tenant with many networks gets one share.
#[test]
fn a_flood_of_one_tenant_from_many_networks_leaves_another_tenant_its_share() {
    let flood: Vec<_> = (0..12).map(|network| owner(1, network)).collect();
    assert_flood_leaves_half(&flood);
}

/// N12: guesses from one network leave about half of the tenant's thread time to users who sign in
/// from another network.
#[test]
fn two_networks_of_a_tenant_share_its_thread_time() {
    let flood = Load { owners: vec![owner(1, 1)], costs: &[CHEAP], jobs: 400 };
    let users = Load { owners: vec![owner(1, 2)], costs: &[CHEAP], jobs: 4 };
    let measurements = Simulation::run(2, &[users, flood], 20_000);
    let [users, flood] = [measurements[0], measurements[1]];
    assert!(users.time * 100 >= (users.time + flood.time) * 45, "{users:?}, {flood:?}");
}

#[test]
fn one_tenant_alone_uses_all_threads_for_cheap_jobs() {
    let load = Load { owners: vec![own_network_owner(1)], costs: &[CHEAP], jobs: 8 };
    let measurements = Simulation::run(4, &[load], 10_000);
    // Four threads, each for 10,000 ms.
    assert!(measurements[0].time >= 4 * 10_000, "{measurements:?}");
}

#[derive(Clone, Debug)]
enum Step {
    /// Takes a slot. Contains the numbers of the tenant and the network.
    Take(u8, u8),
    /// Pushes a job if the owner has a slot without a job. Contains the numbers of the tenant and
    /// the network, and the cost.
    Push(u8, u8, u64),
    /// Starts the next job.
    Next,
    /// Ends a running job.
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
struct OvertakingCosts {
    tenants: HashMap<TenantId, u64>,
    networks: HashMap<Option<IpAddr>, u64>,
}

proptest! {
    /// N12: no bound is exceeded, and a thread is idle only when no job may run. The cost of the
    /// jobs of another tenant in another network that overtake a cheap job is bounded.
    #[test]
    fn random_steps_exceed_no_bound(
        steps in proptest::collection::vec(step(), 1..400),
        slots in 1..20_usize,
        max_expensive_running in 1..4_usize,
    ) {
        let mut queue = queue(slots, max_expensive_running);
        // Number of slots that are taken but have no job yet, by tenant and network.
        let mut slots_without_job = BTreeMap::<(u8, u8), usize>::new();
        let mut running = Vec::new();
        // For each waiting cheap job, the cost of the jobs that overtook this job. Only jobs of
        // another tenant in another network are included.
        let mut overtaking = HashMap::<(WorkOwner, usize), OvertakingCosts>::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(tenant, network) => {
                    let (used_before, owner) = (queue.used_slots(), owner(tenant, network));
                    if queue.take_slot(owner).is_ok() {
                        *slots_without_job.entry((tenant, network)).or_default() += 1;
                        let (tenant_usage, network_usage) = queue.tenant_and_network_usage(owner);
                        prop_assert!(tenant_usage.slots <= slots.div_ceil(2));
                        prop_assert!(network_usage.slots <= (3 * slots).div_ceil(4));
                    } else {
                        prop_assert_eq!(queue.used_slots(), used_before);
                    }
                }
                Step::Push(tenant, network, cost) => {
                    let key = (tenant, network);
                    let slot_count = slots_without_job.get_mut(&key);
                    let Some(slot_count) = slot_count.filter(|count| **count > 0) else {
                        continue;
                    };
                    let owner = owner(tenant, network);
                    queue.push(owner, cost, (owner, number, cost));
                    *slot_count -= 1;
                    if cost <= CHEAP {
                        overtaking.insert((owner, number), OvertakingCosts::default());
                    }
                }
                Step::Next => {
                    if let Some(NextJob { job: (owner, number, cost), info }) = queue.next() {
                        prop_assert_eq!((info.owner, info.expensive), (owner, cost > CHEAP));
                        running.push(info);
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
                        let is_limit_reached = queue.expensive_running == max_expensive_running;
                        prop_assert!(is_limit_reached || queue.waiting_count() == 0);
                    }
                }
                Step::End if running.is_empty() => {}
                Step::End => {
                    let info: JobInfo = running.swap_remove(number % running.len());
                    queue.record_end(info);
                    queue.release_slot(info.owner);
                }
            }
            prop_assert!(queue.used_slots() <= slots);
            prop_assert!(queue.waiting_count() <= queue.used_slots());
            prop_assert!(queue.expensive_running <= max_expensive_running);
            // The queue keeps at most 2 * slots unused entries, and adds at most one entry for each
            // slot. 6 is a margin.
            prop_assert!(queue.tenants.len() <= 3 * slots + 6);
            prop_assert!(queue.networks.len() <= 3 * slots + 6);
            // Each job costs less than 2 * EXPENSIVE.
            let max_queued_cost = u64::try_from(slots).expect("the number fits") * 2 * EXPENSIVE;
            for costs in overtaking.values() {
                for cost in costs.tenants.values().chain(costs.networks.values()) {
                    // At most the cost of the jobs that the tenant and the network of the waiting
                    // job had queued before, and of two more jobs of 2 * EXPENSIVE.
                    prop_assert!(*cost <= max_queued_cost + 4 * EXPENSIVE, "overtaken by {cost}");
                }
            }
        }
    }
}
