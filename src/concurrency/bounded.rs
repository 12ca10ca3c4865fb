//! Permits for objects that are open for a while, such as connections or streams. There is a limit
//! for all owners together, and a limit for each owner.
//!
//! If the limit of an owner is below the total limit, an owner gets a permit only while the owner
//! holds fewer permits than are free (dynamic thresholds, Choudhury and Hahne 1998). So a few
//! owners can never take all permits.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{error::Error, proto::v1::ErrorReason};

/// A pool of permits. Each permit allows one open object of an owner.
pub struct BoundedPermits<K: Eq + Hash + Copy> {
    total_limit: usize,
    limit_per_owner: usize,
    counts: Mutex<Counts<K>>,
}

/// The numbers of permits in use.
struct Counts<K> {
    total: usize,
    by_owner: HashMap<K, usize>,
}

/// Permits for one open object. Dropping this value returns them to the pool.
pub struct BoundedPermit<K: Eq + Hash + Copy> {
    pool: Arc<BoundedPermits<K>>,
    owner: K,
    /// Number of permits.
    count: usize,
}

/// The limit that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TooMany {
    /// The limit on the open objects of all owners.
    Total,
    /// The limit on the open objects of this owner.
    PerOwner,
}

impl From<TooMany> for Error {
    fn from(_: TooMany) -> Self {
        Self::refused(ErrorReason::Overloaded, "too many are open; close one, or try again later")
    }
}

impl<K: Eq + Hash + Copy> BoundedPermits<K> {
    /// Creates a pool without permits in use.
    #[must_use]
    pub fn new(total_limit: usize, limit_per_owner: usize) -> Arc<Self> {
        let counts = Mutex::new(Counts { total: 0, by_owner: HashMap::new() });
        Arc::new(Self { total_limit, limit_per_owner, counts })
    }

    /// Takes a permit for an owner, without waiting.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn acquire(self: &Arc<Self>, owner: K) -> Result<BoundedPermit<K>, TooMany> {
        self.acquire_many(owner, 1)
    }

    /// Takes `count` permits for an object of an owner, without waiting.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn acquire_many(
        self: &Arc<Self>,
        owner: K,
        count: usize,
    ) -> Result<BoundedPermit<K>, TooMany> {
        let mut counts = self.lock();
        self.check_locked(&counts, owner, count)?;
        Ok(self.take(&mut counts, owner, count))
    }

    /// Checks that the owner could take a permit now.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn check(&self, owner: K) -> Result<(), TooMany> {
        self.check_locked(&self.lock(), owner, 1)
    }

    /// Takes `count` permits, even if a limit is exceeded. Use this for an object that must not be
    /// refused any more.
    pub fn acquire_beyond_limits(self: &Arc<Self>, owner: K, count: usize) -> BoundedPermit<K> {
        self.take(&mut self.lock(), owner, count)
    }

    /// Checks that the owner could take `count` permits now. The caller has locked `counts`.
    fn check_locked(&self, counts: &Counts<K>, owner: K, count: usize) -> Result<(), TooMany> {
        if counts.total + count > self.total_limit {
            return Err(TooMany::Total);
        }
        let owner_count = counts.by_owner.get(&owner).copied().unwrap_or_default();
        // The number of free permits limits the owner only if the owner has a limit of its own.
        let free = self.total_limit - counts.total;
        let owner_limit = if self.limit_per_owner < self.total_limit {
            self.limit_per_owner.min(free)
        } else {
            self.total_limit
        };
        if owner_count + count > owner_limit { Err(TooMany::PerOwner) } else { Ok(()) }
    }

    /// Takes the permits without a check of the limits.
    fn take(self: &Arc<Self>, counts: &mut Counts<K>, owner: K, count: usize) -> BoundedPermit<K> {
        *counts.by_owner.entry(owner).or_default() += count;
        counts.total += count;
        BoundedPermit { pool: self.clone(), owner, count }
    }

    fn lock(&self) -> MutexGuard<'_, Counts<K>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Copy> Drop for BoundedPermit<K> {
    fn drop(&mut self) {
        let mut counts = self.pool.lock();
        counts.total -= self.count;
        if let Some(count) = counts.by_owner.get_mut(&self.owner) {
            *count -= self.count;
            if *count == 0 {
                counts.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_can_be_taken_again() {
        // 4 permits in total, at most 2 for each owner.
        let pool = BoundedPermits::new(4, 2);
        let first = pool.acquire('a').ok();
        let second = pool.acquire('a').ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(pool.acquire('a').err(), Some(TooMany::PerOwner));
        let other_permits = (pool.acquire('b').ok(), pool.acquire('c').ok());
        assert!(other_permits.0.is_some() && other_permits.1.is_some());
        assert_eq!(pool.acquire('d').err(), Some(TooMany::Total));
        drop(second);
        assert_eq!(
            pool.acquire('a').err(),
            Some(TooMany::PerOwner),
            "the last permit is reserved for an owner without a permit"
        );
        assert!(pool.acquire('d').is_ok());
        drop((first, other_permits));
        assert!(pool.lock().by_owner.is_empty());
    }

    #[test]
    fn a_few_owners_never_take_all_permits() {
        // 20 permits in total, at most 10 for each owner.
        let pool = BoundedPermits::new(20, 10);
        let mut permits = Vec::new();
        loop {
            let batch: Vec<_> =
                ['a', 'b', 'c'].iter().filter_map(|&owner| pool.acquire(owner).ok()).collect();
            if batch.is_empty() {
                break;
            }
            permits.extend(batch);
        }
        assert_eq!(permits.len(), 15, "each of the three owners holds 5, as many as are free");
        assert!(pool.acquire('d').is_ok());
        let pool_without_owner_limit = BoundedPermits::new(3, 3);
        let permits: Vec<_> =
            (0..3).filter_map(|_| pool_without_owner_limit.acquire('a').ok()).collect();
        assert_eq!(permits.len(), 3, "one owner takes all permits if its limit is the total");
    }
}
