//! Limits how many objects (such as connections or streams) are open at once, in total and for
//! each owner.
//!
//! Where the limit of an owner is below the total, an owner opens another object only while it has
//! fewer open objects than there are free permits (dynamic thresholds, Choudhury and Hahne 1998).
//! So a few owners can never take all permits.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{error::Error, proto::v1::ErrorReason};

/// Counts the open objects of each owner.
pub struct BoundedPermits<K: Eq + Hash + Copy> {
    total: usize,
    per_owner: usize,
    open: Mutex<Counts<K>>,
}

struct Counts<K> {
    all: usize,
    by_owner: HashMap<K, usize>,
}

/// A permit for one open object. Dropping the permit returns it to the pool.
pub struct BoundedPermit<K: Eq + Hash + Copy> {
    all: Arc<BoundedPermits<K>>,
    owner: K,
}

/// The limit that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TooMany {
    /// The limit on the open objects of all owners.
    Total,
    /// The limit on the open objects of this owner.
    OfOwner,
}

impl From<TooMany> for Error {
    fn from(_: TooMany) -> Self {
        Self::refused(ErrorReason::Overloaded, "the maximum number is open already")
    }
}

impl<K: Eq + Hash + Copy> BoundedPermits<K> {
    /// Creates the counter with no open objects.
    #[must_use]
    pub fn new(total: usize, per_owner: usize) -> Arc<Self> {
        let open = Mutex::new(Counts { all: 0, by_owner: HashMap::new() });
        Arc::new(Self { total, per_owner, open })
    }

    /// Opens one more object of an owner.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn open(self: &Arc<Self>, owner: K) -> Result<BoundedPermit<K>, TooMany> {
        let mut open = self.lock();
        if open.all >= self.total {
            return Err(TooMany::Total);
        }
        let owner_count = open.by_owner.get(&owner).copied().unwrap_or_default();
        let free = self.total - open.all;
        let owner_limit =
            if self.per_owner < self.total { self.per_owner.min(free) } else { self.total };
        if owner_count >= owner_limit {
            return Err(TooMany::OfOwner);
        }
        open.by_owner.insert(owner, owner_count + 1);
        open.all += 1;
        Ok(BoundedPermit { all: self.clone(), owner })
    }

    fn lock(&self) -> MutexGuard<'_, Counts<K>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Copy> Drop for BoundedPermit<K> {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.all -= 1;
        if let Some(count) = open.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                open.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_can_be_taken_again() {
        let all = BoundedPermits::new(4, 2);
        let first = all.open('a').ok();
        let second = all.open('a').ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(all.open('a').err(), Some(TooMany::OfOwner));
        let other_permits = (all.open('b').ok(), all.open('c').ok());
        assert!(other_permits.0.is_some() && other_permits.1.is_some());
        assert_eq!(all.open('d').err(), Some(TooMany::Total));
        drop(second);
        assert_eq!(
            all.open('a').err(),
            Some(TooMany::OfOwner),
            "the last permit is kept for a new owner"
        );
        assert!(all.open('d').is_ok());
        drop((first, other_permits));
        assert!(all.lock().by_owner.is_empty());
    }

    #[test]
    fn a_few_owners_never_take_all_permits() {
        let all = BoundedPermits::new(20, 10);
        let mut open = Vec::new();
        loop {
            let batch: Vec<_> =
                ['a', 'b', 'c'].iter().filter_map(|&owner| all.open(owner).ok()).collect();
            if batch.is_empty() {
                break;
            }
            open.extend(batch);
        }
        assert_eq!(open.len(), 15);
        assert!(all.open('d').is_ok());
        let alone = BoundedPermits::new(3, 3);
        let open: Vec<_> = (0..3).filter_map(|_| alone.open('a').ok()).collect();
        assert_eq!(open.len(), 3, "one owner takes all permits if its limit is the total");
    }
}
