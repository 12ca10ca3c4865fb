//! Standings in memory, for the subjects in use.
//!
//! What keeps them true is the change feed: [`Memory::apply`] drops what a change
//! touches. The danger is a read of Postgres that began before a change and is
//! kept after it. Two guards are against it:
//!
//! - A change of one subject removes its place in the cache, also the place that
//!   a read under way is to fill; that read then serves those who waited for it,
//!   who asked before, and is not kept.
//! - A change of what many share, a role or a tenant, moves its tenant's tide. A
//!   read that finds the tide moved is not kept either.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quick_cache::{
    DefaultHashBuilder, UnitWeighter,
    sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard},
};
use uuid::Uuid;

use super::{
    compiled::Shared,
    standing::{Role, Standing, Tenant},
};
use crate::{
    feed::{Change, Follow, Kind},
    ids::{TenantId, UserId},
};

/// How many shores there are; tenants that share one only disturb each other's
/// reads under way.
const SHORES: usize = 256;

type Subject = (TenantId, UserId);

/// The place that a read is to fill.
pub type Place<'a> = PlaceholderGuard<
    'a,
    Subject,
    Arc<Standing>,
    UnitWeighter,
    DefaultHashBuilder,
    DefaultLifecycle<Subject, Arc<Standing>>,
>;

/// The standings of the subjects in use, within bounds.
pub struct Memory {
    subjects: Cache<Subject, Arc<Standing>>,
    shores: Box<[Mutex<Shore>]>,
}

/// What the standings of some tenants share. It holds on to nothing: what no
/// standing has any more is gone.
#[derive(Default)]
struct Shore {
    /// Moves with each change of what is shared.
    tide: u64,
    roles: WeakMap<(TenantId, Uuid), Role>,
    tenants: WeakMap<TenantId, Tenant>,
}

/// The tide when a read began.
#[derive(Clone, Copy)]
pub struct Tide(u64);

impl Memory {
    /// A memory for at most this many subjects.
    #[must_use]
    pub fn new(subjects: usize) -> Self {
        let shores = (0..SHORES).map(|_| Mutex::default()).collect();
        Self { subjects: Cache::new(subjects), shores }
    }

    /// A subject's standing, unless it must be read anew.
    #[must_use]
    pub fn get(&self, tenant: TenantId, user: UserId) -> Option<Arc<Standing>> {
        let subject = (tenant, user);
        let found = self.subjects.get(&subject)?;
        if found.is_stale() {
            self.subjects.remove_if(&subject, |kept| Arc::ptr_eq(kept, &found));
            return None;
        }
        Some(found)
    }

    /// The standing, or the place to fill: of many that ask at once for a
    /// subject that is not here, one gets the place and the others wait for it.
    ///
    /// # Errors
    /// The place.
    pub async fn get_or_place(
        &self,
        tenant: TenantId,
        user: UserId,
    ) -> Result<Arc<Standing>, Place<'_>> {
        self.subjects.get_value_or_guard_async(&(tenant, user)).await
    }

    /// The place to fill, where nobody else is filling it.
    #[must_use]
    pub fn place(&self, tenant: TenantId, user: UserId) -> Option<Place<'_>> {
        match self.subjects.get_value_or_guard(&(tenant, user), Some(Duration::ZERO)) {
            GuardResult::Guard(place) => Some(place),
            GuardResult::Value(_) | GuardResult::Timeout => None,
        }
    }

    /// The tide, before a read.
    #[must_use]
    pub fn tide(&self, tenant: TenantId) -> Tide {
        Tide(self.shore(tenant).tide)
    }

    /// Keeps what was read, with roles and tenant shared, unless something that
    /// it depends on has changed since the tide was taken.
    pub fn keep(
        &self,
        tenant: TenantId,
        mut read: Standing,
        tide: Tide,
        place: Place<'_>,
    ) -> Arc<Standing> {
        // Held to the end: no change of what is shared can come in between.
        let mut shore = self.shore(tenant);
        if shore.tide != tide.0 {
            return Arc::new(read);
        }
        read.tenant = shore.tenants.share(tenant, read.tenant);
        for grant in &mut read.grants {
            let role = (tenant, grant.role.get().id);
            grant.role = shore.roles.share(role, grant.role.clone());
        }
        let read = Arc::new(read);
        place.insert(read.clone()).ok();
        read
    }

    fn shore(&self, tenant: TenantId) -> MutexGuard<'_, Shore> {
        // The last bytes of a UUIDv7 are random.
        lock(&self.shores[usize::from(tenant.0.as_bytes()[15]) % SHORES])
    }
}

impl Follow for Memory {
    fn apply(&self, change: &Change) {
        let tenant = change.tenant;
        match change.kind {
            Kind::User | Kind::Assignment => {
                self.subjects.remove(&(tenant, UserId(change.subject)));
            }
            Kind::Role => {
                let mut shore = self.shore(tenant);
                shore.tide += 1;
                shore.roles.make_stale(&(tenant, change.subject));
            }
            Kind::Tenant => {
                let mut shore = self.shore(tenant);
                shore.tide += 1;
                shore.tenants.make_stale(&tenant);
            }
            Kind::Session => {}
        }
    }

    fn clear(&self) {
        for shore in &self.shores {
            lock(shore).tide += 1;
        }
        self.subjects.clear();
    }
}

fn lock(shore: &Mutex<Shore>) -> MutexGuard<'_, Shore> {
    shore.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values that live as long as somebody shares them.
struct WeakMap<K, V> {
    values: HashMap<K, Weak<Shared<V>>>,
    /// At this size those that nobody has are swept out.
    sweep_at: usize,
}

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), sweep_at: 64 }
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// The value that others share already, or this one, shared from here on.
    fn share(&mut self, key: K, read: Arc<Shared<V>>) -> Arc<Shared<V>> {
        if let Some(shared) = self.values.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.sweep_at = (self.values.len() * 2).max(64);
        }
        self.values.insert(key, Arc::downgrade(&read));
        read
    }

    /// Makes the value stale for all who share it.
    fn make_stale(&mut self, key: &K) {
        if let Some(value) = self.values.remove(key).and_then(|value| value.upgrade()) {
            value.make_stale();
        }
    }
}
