//! The cache of standings: a bounded number of bytes, kept true by the change feed.
//!
//! [`Memory::apply`] drops what a change touches. The danger is a read of Postgres that
//! began before a change and is kept after it. Two guards are against it:
//!
//! - A change of one subject removes its entry, also the placeholder that a read under way
//!   is to fill; that read then serves those who waited for it, who asked before, and is
//!   not kept.
//! - A change of what many share, a role or a tenant, starts a new generation of its
//!   tenant's shard. A read that began in an older generation is not kept either.
//!
//! Roles are shared by the standings that have them. Each standing's weight has its share of
//! its roles: all of a role that it brings in, half of one that one other has, and so on. The
//! shares of those who stay may come to less than the role, by the number of those who left;
//! they never come to much more.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
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

/// Shards of what standings share; tenants in the same one only disturb each other's
/// reads under way.
const SHARDS: usize = 256;

/// What a subject takes in the cache besides its standing, in bytes, about: its ids, its
/// links, its slot, and half as much again for what was dropped and is remembered by its
/// hash.
const ENTRY: usize = 128;

/// Bytes of one part of the cache, at least: what is heavier than a part is never kept. The
/// bounds on what a subject holds, and on the roles of a tenant, leave it room.
const PART: u64 = 16 * 1024 * 1024;

/// Bytes of most entries, about: what the cache's tables are laid out for.
const USUAL: u64 = 320;

type Subject = (TenantId, UserId);

/// The entry that a read is to fill.
pub type Placeholder<'a> = PlaceholderGuard<
    'a,
    Subject,
    Arc<Standing>,
    Weight,
    DefaultHashBuilder,
    DefaultLifecycle<Subject, Arc<Standing>>,
>;

/// The standings of the subjects in use, up to a number of bytes.
pub struct Memory {
    subjects: Cache<Subject, Arc<Standing>, Weight>,
    shards: Box<[Mutex<Shard>]>,
}

/// Weighs standings as they were weighed when they were kept.
#[derive(Clone)]
pub struct Weight;

impl Weighter<Subject, Arc<Standing>> for Weight {
    fn weight(&self, _: &Subject, standing: &Arc<Standing>) -> u64 {
        u64::from(standing.weight)
    }
}

/// How full the cache is.
pub struct Fill {
    /// Subjects in it.
    pub subjects: u64,
    /// Their weight in bytes.
    pub bytes: u64,
    /// The most bytes.
    pub capacity: u64,
}

/// What the standings of some tenants share. It holds on to nothing: what no
/// standing has any more is gone.
#[derive(Default)]
struct Shard {
    /// Counts the changes of what is shared.
    generation: u64,
    roles: WeakMap<(TenantId, Uuid), Role>,
    tenants: WeakMap<TenantId, Tenant>,
}

/// The generation in which a read began.
#[derive(Clone, Copy)]
pub struct Generation(u64);

impl Memory {
    /// A cache of at most this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let parts = usize::try_from(bytes / PART).unwrap_or(usize::MAX);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let usual = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(parts.clamp(1, 4 * threads))
            .estimated_items_capacity(usual.max(1))
            .weight_capacity(bytes)
            .build();
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let subjects = match options {
            Ok(options) => Cache::with_options(options, Weight, hasher, lifecycle),
            // Only what is not set above makes it fail.
            Err(_) => Cache::with_weighter(usual.max(1), bytes, Weight),
        };
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { subjects, shards }
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let subjects = u64::try_from(self.subjects.len()).unwrap_or(u64::MAX);
        let (bytes, capacity) = (self.subjects.weight(), self.subjects.capacity());
        Fill { subjects, bytes, capacity }
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

    /// The standing, or the placeholder to fill: of many that ask at once for a
    /// subject that is not here, one gets the placeholder and the others wait for it.
    ///
    /// # Errors
    /// The placeholder.
    pub async fn get_or_placeholder(
        &self,
        tenant: TenantId,
        user: UserId,
    ) -> Result<Arc<Standing>, Placeholder<'_>> {
        self.subjects.get_value_or_guard_async(&(tenant, user)).await
    }

    /// The placeholder to fill, where nobody else is filling it.
    #[must_use]
    pub fn placeholder(&self, tenant: TenantId, user: UserId) -> Option<Placeholder<'_>> {
        match self.subjects.get_value_or_guard(&(tenant, user), Some(Duration::ZERO)) {
            GuardResult::Guard(placeholder) => Some(placeholder),
            GuardResult::Value(_) | GuardResult::Timeout => None,
        }
    }

    /// The generation, before a read.
    #[must_use]
    pub fn generation(&self, tenant: TenantId) -> Generation {
        Generation(self.shard(tenant).generation)
    }

    /// Keeps what was read, with roles and tenant shared, unless something that
    /// it depends on has changed since that generation.
    pub fn keep(
        &self,
        tenant: TenantId,
        mut read: Standing,
        generation: Generation,
        placeholder: Placeholder<'_>,
    ) -> Arc<Standing> {
        let mut weight = ENTRY + read.bytes();
        // Held to the end: no change of what is shared can come in between.
        let mut shard = self.shard(tenant);
        if shard.generation != generation.0 {
            return Arc::new(read);
        }
        read.tenant = shard.tenants.share(tenant, read.tenant);
        for grant in &mut read.grants {
            let role = (tenant, grant.role.get().id);
            grant.role = shard.roles.share(role, grant.role.clone());
            let holders = Arc::strong_count(&grant.role);
            weight += grant.role.get().permissions.bytes() / holders.max(1);
        }
        read.weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let read = Arc::new(read);
        placeholder.insert(read.clone()).ok();
        read
    }

    fn shard(&self, tenant: TenantId) -> MutexGuard<'_, Shard> {
        // The last bytes of a UUIDv7 are random.
        lock(&self.shards[usize::from(tenant.0.as_bytes()[15]) % SHARDS])
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
                let mut shard = self.shard(tenant);
                shard.generation += 1;
                shard.roles.make_stale(&(tenant, change.subject));
            }
            Kind::Tenant => {
                let mut shard = self.shard(tenant);
                shard.generation += 1;
                shard.tenants.make_stale(&tenant);
            }
            Kind::Session => {}
        }
    }

    fn clear(&self) {
        for shard in &self.shards {
            lock(shard).generation += 1;
        }
        self.subjects.clear();
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::permissions::{
        compiled::PermissionSet,
        standing::{Grant, UserStanding},
    };

    fn tenant() -> Arc<Shared<Tenant>> {
        let slug = String::new();
        let tenant = Tenant { slug, active: true, is_platform: false, takes_api_keys: false };
        Arc::new(Shared::new(tenant))
    }

    fn role(id: u128, permissions: usize) -> Arc<Shared<Role>> {
        let permissions = (0..permissions).map(|n| format!("resource-{n}:read")).collect();
        let permissions = PermissionSet::compile(permissions);
        let (id, name) = (Uuid::from_u128(id), String::new());
        Arc::new(Shared::new(Role { id, name, level: 1, permissions }))
    }

    /// A subject with scoped assignments of one role, each scope of about a kilobyte.
    fn standing(assignments: usize, role: Arc<Shared<Role>>) -> Standing {
        let grants = (0..assignments).map(|n| {
            let scope = json!({ "n": n, "text": "x".repeat(1000) });
            Grant::new(role.clone(), scope.as_object().cloned(), None)
        });
        let grants = grants.collect();
        drop(role);
        Standing { tenant: tenant(), user: UserStanding::Active, grants, weight: 0 }
    }

    fn keep(memory: &Memory, user: u128, read: Standing) -> Arc<Standing> {
        let (tenant, user) = (TenantId(Uuid::nil()), UserId(Uuid::from_u128(user)));
        let generation = memory.generation(tenant);
        let placeholder = memory.placeholder(tenant, user).expect("nobody else reads it");
        memory.keep(tenant, read, generation, placeholder)
    }

    /// N21
    #[test]
    fn a_cache_is_full_by_bytes_and_not_by_subjects() {
        let memory = Memory::new(4 << 20);
        for user in 0..1000 {
            keep(&memory, user, standing(0, role(1, 0)));
        }
        assert_eq!(memory.fill().subjects, 1000, "small ones");
        for user in 1000..1100 {
            keep(&memory, user, standing(100, role(1, 0)));
            let fill = memory.fill();
            assert!(fill.bytes <= fill.capacity, "{} {}", fill.bytes, fill.capacity);
        }
        let fill = memory.fill();
        assert!(fill.capacity <= 4 << 20 && fill.bytes > 2 << 20, "{}", fill.bytes);
        assert!(fill.subjects < 1100, "not all of them fit: {}", fill.subjects);
    }

    /// N21
    #[test]
    fn roles_are_weighed_by_those_who_share_them() {
        let memory = Memory::new(64 << 20);
        let large = role(1, 1000);
        let bytes = u32::try_from(large.get().permissions.bytes()).expect("fits");
        assert!(bytes > 50_000, "{bytes}");
        let first = keep(&memory, 1, standing(1, role(1, 1000)));
        let small = keep(&memory, 2, standing(1, role(2, 0))).weight;
        assert_eq!(first.weight - small, bytes, "the first brings the role in");
        let second = keep(&memory, 3, standing(1, role(1, 1000)));
        assert!(Arc::ptr_eq(&first.grants[0].role, &second.grants[0].role));
        assert_eq!(second.weight - small, bytes / 2);
    }
}
