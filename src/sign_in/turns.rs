//! When failures are due: as if all comparisons of a tenant, and of a network, were the
//! costliest.
//!
//! The expensive comparisons of a tenant wait for each other, and so do those from a network,
//! whoever's they are. So the times of many failures at once would show which accounts have an
//! imported hash. Each sign-in takes a turn when it begins, behind those of its tenant and
//! those of its network before it; its failure is due at the first multiple of the failure
//! time after the later turn. What does not fail gives its turns back.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{ids::TenantId, limits::Owner, passwords::WorstCase};

/// The latest turn, in failure times: a flood of failures must not make a tenant's users,
/// who mistype now and then, wait for all of it.
const LATEST: u32 = 4;

/// The turns of all tenants and networks.
pub(super) struct Turns {
    time: Duration,
    /// The turn of one comparison: as many as there is time for are in a failure time.
    length: Duration,
    /// Comparisons one after the other that there is time for in a failure time.
    in_a_row: u32,
    /// Until when the turns of each go.
    ends: Mutex<HashMap<Queue, Instant>>,
}

/// Comparisons that wait for each other: a tenant's, or those from a network.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Queue {
    Tenant(TenantId),
    Network(Option<IpAddr>),
}

/// A sign-in's turn.
pub(super) struct Turn {
    /// What it took of each queue.
    taken: [(Queue, Duration); 2],
    /// When its failure is due, after its begin.
    pub due: Duration,
}

impl Turns {
    pub(super) fn new(time: Duration, worst_case: WorstCase) -> Self {
        let fit = |at_once: u128| {
            let fit = time.as_nanos() * at_once / worst_case.time.as_nanos().max(1);
            u32::try_from(fit).unwrap_or(u32::MAX).max(1)
        };
        let at_once = u128::try_from(worst_case.at_once).unwrap_or(1);
        Self { time, length: time / fit(at_once), in_a_row: fit(1), ends: Mutex::default() }
    }

    /// Takes the next turns of an owner for a sign-in that began then, of so many comparisons.
    pub(super) fn take(&self, owner: Owner, began: Instant, comparisons: u32) -> Turn {
        let mut ends = self.lock();
        ends.retain(|_, end| *end > began);
        let latest = began + self.time.saturating_mul(LATEST);
        let in_a_row = self.time.saturating_mul(comparisons.div_ceil(self.in_a_row));
        let mut due = in_a_row;
        let taken = [Queue::Tenant(owner.tenant), Queue::Network(owner.network)].map(|queue| {
            let start = ends.get(&queue).copied().unwrap_or(began);
            let end = (start + self.length.saturating_mul(comparisons)).min(latest).max(start);
            ends.insert(queue, end);
            due = due.max(end - began);
            (queue, end - start)
        });
        Turn { taken, due: self.due(due) }
    }

    pub(super) fn give_back(&self, turn: &Turn) {
        let mut ends = self.lock();
        for (queue, length) in &turn.taken {
            if let Some(end) = ends.get_mut(queue)
                && let Some(earlier) = end.checked_sub(*length)
            {
                *end = earlier;
            }
        }
    }

    /// The first multiple of the failure time that has not passed.
    pub(super) fn due(&self, elapsed: Duration) -> Duration {
        let times = elapsed.as_nanos().div_ceil(self.time.as_nanos().max(1)).max(1);
        self.time.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, Instant>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    /// Where a comparison takes 0.37 s at most.
    fn turns(at_once: usize) -> Turns {
        Turns::new(TIME, WorstCase { time: Duration::from_millis(370), at_once })
    }

    /// A tenant's users, at this network.
    fn owner(tenant: TenantId, network: u8) -> Owner {
        Owner::new(tenant, Some([192, 0, 2, network].into()))
    }

    fn seconds(turns: &Turns, owner: Owner, began: Instant, count: usize) -> Vec<u64> {
        (0..count).map(|_| turns.take(owner, began, 1).due.as_secs()).collect()
    }

    #[test]
    fn failures_are_due_at_multiples_of_the_time() {
        let turns = turns(1);
        for (elapsed, times) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2800, 3)] {
            assert_eq!(turns.due(Duration::from_millis(elapsed)), TIME * times, "{elapsed}");
        }
    }

    /// N13: due when the costliest would have been compared one after the other, whichever
    /// they are.
    #[test]
    fn failures_at_once_are_due_as_if_all_were_the_costliest() {
        let (tenant, now) = (TenantId::new(), Instant::now());
        let (one, other) = (owner(tenant, 1), owner(TenantId::new(), 2));
        let alone = turns(1);
        assert_eq!(seconds(&alone, one, now, 8), [1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(seconds(&alone, other, now, 2), [1, 1], "others' are no matter");
        assert_eq!(seconds(&alone, owner(tenant, 3), now, 1), [4], "of the tenant");
        let elsewhere = owner(TenantId::new(), 1);
        assert_eq!(seconds(&alone, elsewhere, now, 1), [4], "from the network");
        assert_eq!(seconds(&turns(2), one, now, 6), [1, 1, 1, 1, 1, 2]);
        // Time makes room.
        assert_eq!(seconds(&alone, one, now + 3 * TIME, 3), [2, 2, 3]);
        assert_eq!(seconds(&alone, one, now + 60 * TIME, 1), [1]);
        // A sign-in without a tenant compares three.
        assert_eq!(turns(1).take(one, now, 3).due, 2 * TIME);
        assert_eq!(turns(8).take(one, now, 3).due, 2 * TIME, "they don't run at once");
    }

    #[test]
    fn a_flood_makes_nobody_wait_longer_than_the_latest_turn() {
        let (turns, one, now) = (turns(1), owner(TenantId::new(), 1), Instant::now());
        assert_eq!(seconds(&turns, one, now, 100).last(), Some(&4));
    }

    #[test]
    fn a_success_gives_its_turn_back() {
        let (turns, one, now) = (turns(1), owner(TenantId::new(), 1), Instant::now());
        for _ in 0..100 {
            let turn = turns.take(one, now, 1);
            assert_eq!(turn.due, TIME);
            turns.give_back(&turn);
        }
    }

    #[test]
    fn a_time_in_which_nothing_fits_hides_nothing_and_delays_nobody() {
        let worst_case = WorstCase { time: Duration::from_millis(370), at_once: 1 };
        let turns = Turns::new(Duration::from_millis(1), worst_case);
        let turn = turns.take(owner(TenantId::new(), 1), Instant::now(), 3);
        assert_eq!(turn.due, Duration::from_millis(3));
    }
}
