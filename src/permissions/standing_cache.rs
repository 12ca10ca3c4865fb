//! The cache of standings: bounded in bytes, and invalidated by the change feed.
//!
//! [`StandingCache::apply`] removes the entries that a change affects. A read that begins before a
//! change could be cached after the change was applied, and stay stale. Two rules prevent this:
//!
//! - A change of one subject removes the subject's entry, or the placeholder that a read in flight
//!   would fill. Then the result of the read is not cached. The calls that already wait for the
//!   read get the result, because these calls began before the change.
//! - A change of shared data (a role or a tenant) starts a new generation in the tenant's shard.
//!   The result of a read that began in an older generation is not cached.
//!
//! The cached standings share their roles. The weight of a standing includes a part of each role:
//! the role's size divided by the number of standings that hold the role when the standing is
//! cached. So the first holder is weighed with the whole role, the second holder with half, and so
//! on. While no holder is evicted, the parts add up to 1 + 1/2 + 1/3 + … times the role's size.
//! When the first holders have been evicted, the sum may be smaller than the role's size.

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
    compiled::Invalidatable,
    standing::{Role, Standing, Tenant},
};
use crate::{
    feed::{Change, ChangeListener, Kind},
    ids::{SubjectId, TenantId},
};

/// Number of shards for shared data. Tenants in the same shard share a generation. So a change in
/// one tenant also prevents the caching of results that are being read for the other tenants. It
/// has no other effect on them.
const SHARDS: usize = 256;

/// Approximate memory of an entry without the standing, in bytes: the ids, the links and the table
/// slot. Includes 50 % more for evicted entries, because the cache still keeps their hashes.
const ENTRY_OVERHEAD: usize = 128;

/// The minimum size of one segment of the cache, in bytes. A segment is what `quick_cache` calls a
/// shard; it is not a [`Shard`] of this file. An entry that is larger than its segment is
/// never cached; the limits on a subject's assignments and a tenant's roles keep entries smaller.
const MIN_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Approximate size of a typical entry, in bytes. Sets the initial size of the cache's tables.
const TYPICAL_ENTRY_BYTES: u64 = 320;

type Subject = (TenantId, SubjectId);

/// The placeholder of an entry that a read in flight will fill.
pub type Placeholder<'a> = PlaceholderGuard<
    'a,
    Subject,
    Arc<Standing>,
    StandingWeighter,
    DefaultHashBuilder,
    DefaultLifecycle<Subject, Arc<Standing>>,
>;

/// The cache of standings, bounded in bytes.
pub struct StandingCache {
    subjects: Cache<Subject, Arc<Standing>, StandingWeighter>,
    shards: Box<[Mutex<Shard>]>,
}

/// Weighs an entry with the weight that it had when it was cached.
#[derive(Clone)]
pub struct StandingWeighter;

impl Weighter<Subject, Arc<Standing>> for StandingWeighter {
    fn weight(&self, _: &Subject, standing: &Arc<Standing>) -> u64 {
        u64::from(standing.weight)
    }
}

/// The number of entries in the cache, and their memory.
pub struct CacheUsage {
    /// The number of cached subjects.
    pub subjects: u64,
    /// The sum of the weights of all entries, in bytes.
    pub bytes: u64,
    /// The maximum sum of the weights, in bytes.
    pub capacity: u64,
}

/// The roles and tenants that cached standings share. A shard has weak references: a role or tenant
/// is freed with the last standing that uses it.
#[derive(Default)]
struct Shard {
    /// Number of changes of shared data in this shard.
    generation: u64,
    roles: WeakMap<(TenantId, Uuid), Role>,
    tenants: WeakMap<TenantId, Tenant>,
}

/// The generation of a shard when a read began.
#[derive(Clone, Copy)]
pub struct Generation(u64);

impl StandingCache {
    /// Creates a cache of at most `bytes` bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let segments = usize::try_from(bytes / MIN_SEGMENT_BYTES).unwrap_or(usize::MAX);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let expected_entries = usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(segments.clamp(1, 4 * threads))
            .estimated_items_capacity(expected_entries.max(1))
            .weight_capacity(bytes)
            .build();
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let subjects = match options {
            Ok(options) => Cache::with_options(options, StandingWeighter, hasher, lifecycle),
            // Can't happen: `build` fails only when an option is missing.
            Err(_) => Cache::with_weighter(expected_entries.max(1), bytes, StandingWeighter),
        };
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { subjects, shards }
    }

    /// The number of entries in the cache now, and their memory.
    #[must_use]
    pub fn usage(&self) -> CacheUsage {
        let subjects = u64::try_from(self.subjects.len()).unwrap_or(u64::MAX);
        let (bytes, capacity) = (self.subjects.weight(), self.subjects.capacity());
        CacheUsage { subjects, bytes, capacity }
    }

    /// The standing of a subject; `None` when it is not cached or is stale.
    #[must_use]
    pub fn get(&self, tenant: TenantId, user: SubjectId) -> Option<Arc<Standing>> {
        let subject = (tenant, user);
        let standing = self.subjects.get(&subject)?;
        if standing.is_stale() {
            // Another call may have cached a current standing since. That one must stay.
            self.subjects.remove_if(&subject, |cached| Arc::ptr_eq(cached, &standing));
            return None;
        }
        Some(standing)
    }

    /// The cached standing, or the placeholder to fill. When several calls need a subject that is
    /// not cached, one of them gets the placeholder. The other calls wait until the placeholder is
    /// filled or dropped.
    ///
    /// # Errors
    /// Returns the placeholder when the standing is not cached.
    pub async fn get_or_placeholder(
        &self,
        tenant: TenantId,
        user: SubjectId,
    ) -> Result<Arc<Standing>, Placeholder<'_>> {
        self.subjects.get_value_or_guard_async(&(tenant, user)).await
    }

    /// The placeholder to fill; `None` when the standing is cached or another call is reading it.
    #[must_use]
    pub fn placeholder(&self, tenant: TenantId, user: SubjectId) -> Option<Placeholder<'_>> {
        match self.subjects.get_value_or_guard(&(tenant, user), Some(Duration::ZERO)) {
            GuardResult::Guard(placeholder) => Some(placeholder),
            GuardResult::Value(_) | GuardResult::Timeout => None,
        }
    }

    /// The current generation. Get the generation before a read whose result is to be cached.
    #[must_use]
    pub fn generation(&self, tenant: TenantId) -> Generation {
        Generation(self.shard(tenant).generation)
    }

    /// Caches a standing that was read, and shares the roles and the tenant with other standings.
    /// If shared data of the shard has changed since `generation`, the standing is returned but not
    /// cached.
    pub fn cache_if_current(
        &self,
        tenant: TenantId,
        mut standing: Standing,
        generation: Generation,
        placeholder: Placeholder<'_>,
    ) -> Arc<Standing> {
        let mut weight = ENTRY_OVERHEAD + standing.bytes();
        // The lock is held until the end of this function, so that no change of shared data is
        // applied in the meantime.
        let mut shard = self.shard(tenant);
        if shard.generation != generation.0 {
            return Arc::new(standing);
        }
        standing.tenant = shard.tenants.get_or_insert(tenant, standing.tenant);
        for grant in &mut standing.grants {
            let role_key = (tenant, grant.role.get().id);
            grant.role = shard.roles.get_or_insert(role_key, grant.role.clone());
            let holders = Arc::strong_count(&grant.role);
            weight += grant.role.get().permissions.bytes() / holders.max(1);
        }
        standing.weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let standing = Arc::new(standing);
        // Fails when a change of the subject has removed the placeholder. Then the standing is not
        // cached.
        placeholder.insert(standing.clone()).ok();
        standing
    }

    fn shard(&self, tenant: TenantId) -> MutexGuard<'_, Shard> {
        // The last bytes of a UUIDv7 are random, so tenants are spread evenly over the shards.
        lock(&self.shards[usize::from(tenant.0.as_bytes()[15]) % SHARDS])
    }
}

impl ChangeListener for StandingCache {
    fn apply(&self, change: &Change) {
        let tenant = change.tenant;
        match change.kind {
            Kind::User | Kind::Assignment => {
                self.subjects.remove(&(tenant, SubjectId(change.subject)));
            }
            Kind::Role => {
                let mut shard = self.shard(tenant);
                shard.generation += 1;
                shard.roles.mark_stale(&(tenant, change.subject));
            }
            Kind::Tenant => {
                let mut shard = self.shard(tenant);
                shard.generation += 1;
                shard.tenants.mark_stale(&tenant);
            }
            Kind::Session => {}
        }
    }

    fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.generation += 1;
            shard.roles.mark_all_stale();
            shard.tenants.mark_all_stale();
        }
        self.subjects.clear();
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Weak references to shared values. A value lives as long as a strong reference to it exists.
struct WeakMap<K, V> {
    values: HashMap<K, Weak<Invalidatable<V>>>,
    /// At this number of entries, the references to freed values are removed.
    sweep_at: usize,
}

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), sweep_at: 64 }
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// Returns the value that the map has under this key. If the map has no value, inserts `value`
    /// and returns it.
    fn get_or_insert(&mut self, key: K, value: Arc<Invalidatable<V>>) -> Arc<Invalidatable<V>> {
        if let Some(shared) = self.values.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.sweep_at = (self.values.len() * 2).max(64);
        }
        self.values.insert(key, Arc::downgrade(&value));
        value
    }

    /// Removes the value, and marks it as stale for all standings that share it.
    fn mark_stale(&mut self, key: &K) {
        if let Some(value) = self.values.remove(key).and_then(|value| value.upgrade()) {
            value.mark_stale();
        }
    }

    /// Removes all values, and marks them as stale. A call may still hold a standing with such a
    /// value; no later standing shares it.
    fn mark_all_stale(&mut self) {
        for value in self.values.drain().filter_map(|(_, value)| value.upgrade()) {
            value.mark_stale();
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

    fn tenant() -> Arc<Invalidatable<Tenant>> {
        let slug = String::new();
        let tenant =
            Tenant { slug, active: true, is_platform: false, accepts_api_key_bearer: false };
        Arc::new(Invalidatable::new(tenant))
    }

    fn role(id: u128, permission_count: usize) -> Arc<Invalidatable<Role>> {
        let permissions = (0..permission_count).map(|n| format!("resource-{n}:read")).collect();
        let permissions = PermissionSet::compile(permissions);
        let (id, name) = (Uuid::from_u128(id), String::new());
        Arc::new(Invalidatable::new(Role { id, name, level: 1, permissions }))
    }

    /// A subject with assignments of one role, each with a scope of about 1 kB.
    fn standing(assignments: usize, role: Arc<Invalidatable<Role>>) -> Standing {
        let grants = (0..assignments).map(|n| {
            let scope = json!({ "n": n, "text": "x".repeat(1000) });
            Grant::new(role.clone(), scope.as_object().cloned(), None)
        });
        let grants = grants.collect();
        // The weight depends on the number of references to the role, so no other reference may
        // remain.
        drop(role);
        Standing { tenant: tenant(), user: UserStanding::Active, grants, weight: 0 }
    }

    fn cache_standing(cache: &StandingCache, user: u128, standing: Standing) -> Arc<Standing> {
        let (tenant, user) = (TenantId(Uuid::nil()), SubjectId(Uuid::from_u128(user)));
        let generation = cache.generation(tenant);
        let placeholder = cache.placeholder(tenant, user).expect("no other read is in flight");
        cache.cache_if_current(tenant, standing, generation, placeholder)
    }

    /// N21: the capacity of the cache is measured in bytes, not in subjects.
    #[test]
    fn the_cache_evicts_entries_when_its_capacity_is_used_up() {
        let cache = StandingCache::new(4 << 20);
        for user in 0..1000 {
            cache_standing(&cache, user, standing(0, role(1, 0)));
        }
        assert_eq!(cache.usage().subjects, 1000, "1000 small entries fit");
        for user in 1000..1100 {
            // A standing with 100 scopes has about 100 kB, so at most about 40 of them fit.
            cache_standing(&cache, user, standing(100, role(1, 0)));
            let usage = cache.usage();
            assert!(usage.bytes <= usage.capacity, "{} {}", usage.bytes, usage.capacity);
        }
        let usage = cache.usage();
        assert!(usage.capacity <= 4 << 20 && usage.bytes > 2 << 20, "{}", usage.bytes);
        assert!(usage.subjects < 1100, "all {} entries are cached", usage.subjects);
    }

    /// N21: the weight of a shared role is divided among the standings that share the role.
    #[test]
    fn each_standing_is_weighed_with_a_part_of_its_role() {
        let cache = StandingCache::new(64 << 20);
        let role_bytes = role(1, 1000).get().permissions.bytes();
        let bytes = u32::try_from(role_bytes).expect("the number fits");
        assert!(bytes > 50_000, "{bytes}");
        let first = cache_standing(&cache, 1, standing(1, role(1, 1000)));
        let weight_without_role = cache_standing(&cache, 2, standing(1, role(2, 0))).weight;
        assert_eq!(
            first.weight - weight_without_role,
            bytes,
            "the first standing is weighed with the whole role"
        );
        let second = cache_standing(&cache, 3, standing(1, role(1, 1000)));
        assert!(Arc::ptr_eq(&first.grants[0].role, &second.grants[0].role));
        assert_eq!(
            second.weight - weight_without_role,
            bytes / 2,
            "the second standing is weighed with half of the role"
        );
    }

    /// After `clear`, a read shares no role with a standing that a call still holds, because
    /// the change of this role may have been missed.
    #[test]
    fn a_cleared_cache_shares_no_earlier_roles_and_tenants() {
        let cache = StandingCache::new(4 << 20);
        let held_standing = cache_standing(&cache, 1, standing(1, role(1, 3)));
        cache.clear();
        assert!(held_standing.is_stale());
        let new_standing = cache_standing(&cache, 2, standing(1, role(1, 0)));
        assert!(!Arc::ptr_eq(&held_standing.grants[0].role, &new_standing.grants[0].role));
        assert!(!Arc::ptr_eq(&held_standing.tenant, &new_standing.tenant));
    }
}
