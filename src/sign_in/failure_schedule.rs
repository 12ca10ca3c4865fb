//! Decides when the responses to failed sign-ins are due, as if each comparison were the most
//! expensive comparison.
//!
//! Expensive comparisons of the same tenant wait for each other, and so do expensive comparisons
//! from the same network, whatever their tenant. So the response times of many concurrent failures
//! would show which accounts have an expensive hash, imported from another system. To prevent this,
//! each sign-in takes two turns when it begins: a turn is a planned period, one in the queue of the
//! tenant and one in the queue of the network. If the sign-in fails, the response is due at the
//! first multiple of the failure time after the ends of both turns. A sign-in that does not fail
//! gives its turns back.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{ids::TenantId, limits::WorkOwner, passwords::WorstCase};

/// The latest end of a turn: this number of failure times after the start of the sign-in. Because
/// of this bound, users who mistype a password while many sign-ins of their tenant fail do not wait
/// for all these failures.
const MAX_FAILURE_TIMES: u32 = 4;

/// The turns of all tenants and networks.
pub(super) struct FailureSchedule {
    /// The failure time: the shortest time until the response to a failure.
    failure_time: Duration,
    /// The length of the turn of one comparison: the failure time, divided by the number of
    /// comparisons that fit into the failure time when they run concurrently.
    turn_length: Duration,
    /// Number of comparisons that fit into the failure time when they run one after another.
    sequential_comparisons: u32,
    /// The end of the last turn of each queue.
    queue_ends: Mutex<HashMap<Queue, Instant>>,
}

/// A queue of comparisons that wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Queue {
    Tenant(TenantId),
    Network(Option<IpAddr>),
}

/// The turn of a sign-in in the two queues.
pub(super) struct Turn {
    /// The time that the sign-in takes in each queue.
    queue_times: [(Queue, Duration); 2],
    /// Time from the start of the sign-in until the response to its failure is due.
    pub due_after: Duration,
}

impl FailureSchedule {
    pub(super) fn new(time: Duration, worst_case: WorstCase) -> Self {
        let fitting_comparisons = |concurrent: u128| {
            let count = time.as_nanos() * concurrent / worst_case.time.as_nanos().max(1);
            u32::try_from(count).unwrap_or(u32::MAX).max(1)
        };
        let concurrent = u128::try_from(worst_case.at_once).unwrap_or(1);
        Self {
            failure_time: time,
            turn_length: time / fitting_comparisons(concurrent),
            sequential_comparisons: fitting_comparisons(1),
            queue_ends: Mutex::default(),
        }
    }

    /// Takes the next turn in both queues of `owner`, for a sign-in with this number of
    /// comparisons that began at `began`.
    pub(super) fn take(&self, owner: WorkOwner, began: Instant, comparisons: u32) -> Turn {
        let mut queue_ends = self.lock();
        queue_ends.retain(|_, end| *end > began);
        let latest_end = began + self.failure_time.saturating_mul(MAX_FAILURE_TIMES);
        let sequential_time =
            self.failure_time.saturating_mul(comparisons.div_ceil(self.sequential_comparisons));
        let mut due_after = sequential_time;
        let queues = [Queue::Tenant(owner.tenant), Queue::Network(owner.network)];
        let queue_times = queues.map(|queue| {
            let start = queue_ends.get(&queue).copied().unwrap_or(began);
            let length = self.turn_length.saturating_mul(comparisons);
            let end = (start + length).min(latest_end).max(start);
            queue_ends.insert(queue, end);
            due_after = due_after.max(end - began);
            (queue, end - start)
        });
        Turn { queue_times, due_after: self.round_up(due_after) }
    }

    /// Gives back the turn of a sign-in that did not fail. Later sign-ins get earlier turns.
    pub(super) fn give_back(&self, turn: &Turn) {
        let mut queue_ends = self.lock();
        for (queue, length) in &turn.queue_times {
            if let Some(end) = queue_ends.get_mut(queue)
                && let Some(earlier) = end.checked_sub(*length)
            {
                *end = earlier;
            }
        }
    }

    /// Rounds `elapsed` up to a multiple of the failure time, at least to the failure time.
    pub(super) fn round_up(&self, elapsed: Duration) -> Duration {
        let times = elapsed.as_nanos().div_ceil(self.failure_time.as_nanos().max(1)).max(1);
        self.failure_time.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, Instant>> {
        self.queue_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    /// A schedule for comparisons that take at most 0.37 s.
    fn schedule(concurrent: usize) -> FailureSchedule {
        FailureSchedule::new(
            TIME,
            WorstCase { time: Duration::from_millis(370), at_once: concurrent },
        )
    }

    /// An owner in the tenant and in the network 192.0.2.`network`.
    fn owner(tenant: TenantId, network: u8) -> WorkOwner {
        WorkOwner::new(tenant, Some([192, 0, 2, network].into()))
    }

    fn due_seconds(
        schedule: &FailureSchedule,
        owner: WorkOwner,
        began: Instant,
        count: usize,
    ) -> Vec<u64> {
        (0..count).map(|_| schedule.take(owner, began, 1).due_after.as_secs()).collect()
    }

    #[test]
    fn failures_are_due_at_multiples_of_the_failure_time() {
        let schedule = schedule(1);
        for (elapsed, times) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2800, 3)] {
            assert_eq!(
                schedule.round_up(Duration::from_millis(elapsed)),
                TIME * times,
                "{elapsed}"
            );
        }
    }

    /// N13: the due times assume that each comparison is the most expensive comparison.
    #[test]
    fn concurrent_failures_are_due_as_if_each_comparison_were_the_most_expensive() {
        let (tenant, now) = (TenantId::new(), Instant::now());
        let (owner_1, owner_2) = (owner(tenant, 1), owner(TenantId::new(), 2));
        // Two comparisons of 0.37 s fit into 1 s, so a turn is 0.5 s long. The latest turn ends
        // after 4 s.
        let schedule_1 = schedule(1);
        assert_eq!(due_seconds(&schedule_1, owner_1, now, 8), [1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(due_seconds(&schedule_1, owner_2, now, 2), [1, 1], "other tenant and network");
        assert_eq!(due_seconds(&schedule_1, owner(tenant, 3), now, 1), [4], "same tenant");
        let same_network = owner(TenantId::new(), 1);
        assert_eq!(due_seconds(&schedule_1, same_network, now, 1), [4], "same network");
        // Five comparisons fit into 1 s when two run concurrently.
        assert_eq!(due_seconds(&schedule(2), owner_1, now, 6), [1, 1, 1, 1, 1, 2]);
        // After 3 s, the queue still has the turns of one more second.
        assert_eq!(due_seconds(&schedule_1, owner_1, now + 3 * TIME, 3), [2, 2, 3]);
        assert_eq!(due_seconds(&schedule_1, owner_1, now + 60 * TIME, 1), [1], "all turns ended");
        // A sign-in without a tenant makes three comparisons, one after another.
        assert_eq!(schedule(1).take(owner_1, now, 3).due_after, 2 * TIME);
        assert_eq!(
            schedule(8).take(owner_1, now, 3).due_after,
            2 * TIME,
            "even with eight threads"
        );
    }

    #[test]
    fn a_flood_of_failures_delays_no_failure_beyond_the_latest_turn() {
        let (schedule, owner, now) = (schedule(1), owner(TenantId::new(), 1), Instant::now());
        assert_eq!(due_seconds(&schedule, owner, now, 100).last(), Some(&4));
    }

    #[test]
    fn a_success_gives_its_turn_back() {
        let (schedule, owner, now) = (schedule(1), owner(TenantId::new(), 1), Instant::now());
        for _ in 0..100 {
            let turn = schedule.take(owner, now, 1);
            assert_eq!(turn.due_after, TIME);
            schedule.give_back(&turn);
        }
    }

    #[test]
    fn a_failure_is_due_after_one_failure_time_per_comparison_if_none_fits_into_it() {
        let worst_case = WorstCase { time: Duration::from_millis(370), at_once: 1 };
        let schedule = FailureSchedule::new(Duration::from_millis(1), worst_case);
        let turn = schedule.take(owner(TenantId::new(), 1), Instant::now(), 3);
        assert_eq!(turn.due_after, Duration::from_millis(3));
    }
}
