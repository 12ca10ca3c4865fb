//! A subject's standing: all data of a subject that decisions depend on.

use std::{collections::BTreeSet, mem::size_of, sync::Arc};

use uuid::Uuid;

use super::{
    Permission, Scope,
    assigned::AssignedScope,
    compiled::{PermissionSet, Shared},
};
use crate::{clock, concurrency::pace::Pace, proto::v1::RoleLevel};

/// Approximate overhead of the allocator for each block, in bytes.
const BLOCK_OVERHEAD: usize = 16;

/// The tenant, the state and the grants of a subject. The tenant and the roles are shared in memory
/// with the standings of other subjects.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The subject's tenant.
    pub tenant: Arc<Shared<Tenant>>,
    /// Whether the subject exists in the tenant and is active.
    pub user: UserStanding,
    /// The subject's role assignments. They may include expired assignments, which decisions
    /// ignore.
    pub grants: Box<[Grant]>,
    /// The weight of this standing in the cache, in bytes, computed when the standing was cached.
    pub weight: u32,
}

/// The tenant's data that decisions need.
#[derive(Debug)]
pub struct Tenant {
    /// The slug: the tenant's unique name in metadata and requests.
    pub slug: String,
    /// False when the tenant is suspended.
    pub active: bool,
    /// Whether this is the platform tenant.
    pub is_platform: bool,
    /// Whether the tenant accepts API keys as bearer tokens.
    pub takes_api_keys: bool,
}

/// Whether a subject exists and may act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserStanding {
    /// The tenant has no such subject.
    Unknown,
    /// The user is disabled.
    Disabled,
    /// The subject may act.
    Active,
}

/// A role's data that decisions need.
#[derive(Debug)]
pub struct Role {
    /// The id of the role.
    pub id: Uuid,
    /// The name of the role, unique in its tenant.
    pub name: String,
    /// The level of the role. Higher levels have more power.
    pub level: i32,
    /// The permissions of the role.
    pub permissions: PermissionSet,
}

/// An assignment of a role to a subject, with its scope and expiry. The cache has a grant for each
/// role of each cached subject, so a grant takes only two words: most assignments have neither a
/// scope nor an expiry.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The assigned role.
    pub role: Arc<Shared<Role>>,
    limits: Option<Box<Limits>>,
}

/// The scope and the expiry of an assignment.
#[derive(Clone, Debug)]
struct Limits {
    scope: Option<AssignedScope>,
    expires_at: Option<i64>,
}

impl Grant {
    /// Creates a grant. A `scope` of `None` applies everywhere. `expires_at` is in seconds since
    /// 1970; `None` means that the grant never expires.
    #[must_use]
    pub fn new(role: Arc<Shared<Role>>, scope: Option<Scope>, expires_at: Option<i64>) -> Self {
        let scope = scope.map(AssignedScope::compile);
        let limited = scope.is_some() || expires_at.is_some();
        Self { role, limits: limited.then(|| Box::new(Limits { scope, expires_at })) }
    }

    /// The scope; `None` applies everywhere.
    #[must_use]
    pub fn scope(&self) -> Option<&AssignedScope> {
        self.limits.as_deref()?.scope.as_ref()
    }

    /// Whether the grant applies to the scope of a request.
    #[must_use]
    pub fn applies(&self, requested: &Scope) -> bool {
        self.scope().is_none_or(|scope| scope.applies(requested))
    }

    /// Approximate memory use without the role, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let limits = self.limits.as_deref();
        let limits = limits.map_or(0, |limits| {
            BLOCK_OVERHEAD
                + size_of::<Limits>()
                + limits.scope.as_ref().map_or(0, AssignedScope::bytes)
        });
        size_of::<Self>() + limits
    }

    /// Whether the role has this permission. Ignores the scope of the grant.
    #[must_use]
    pub fn permits(&self, permission: &Permission<'_>) -> bool {
        self.role.get().permissions.covers(permission)
    }

    /// The expiry of the grant, in seconds since 1970; `None` means never.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.limits.as_ref().and_then(|limits| limits.expires_at)
    }

    /// Whether the grant has not expired. A grant expires without a write. The clock is read only
    /// for a grant with an expiry.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.expires_at().is_none_or(|expiry| expiry > clock::now().unix_timestamp())
    }
}

impl Standing {
    /// Whether both the subject and its tenant are active.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.user == UserStanding::Active && self.tenant.get().active
    }

    /// Approximate memory of the standing without its tenant and roles, in bytes. Includes the
    /// overhead of the allocator.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let reference_counts = 2 * size_of::<usize>();
        let grants = self.grants.iter().map(Grant::bytes).sum::<usize>();
        reference_counts + size_of::<Self>() + grants + 2 * BLOCK_OVERHEAD
    }

    /// Whether the tenant or one of the roles has changed since this standing was read.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.tenant.is_stale() || self.grants.iter().any(|grant| grant.role.is_stale())
    }

    /// The grants that have not expired.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.in_force())
    }

    /// The grants without a scope that have not expired. These grants apply everywhere. Method
    /// policies, and the rule for power over others for its actor, use only these grants.
    pub fn unscoped(&self) -> impl Iterator<Item = &Grant> {
        self.grants().filter(|grant| grant.scope().is_none())
    }

    /// Whether the subject holds the permission `text` in a grant without a scope. `text` may have
    /// wildcards. Returns false for a malformed `text`.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        Permission::parse(text)
            .is_some_and(|permission| self.unscoped().any(|grant| grant.permits(&permission)))
    }

    /// The permissions that the subject holds in grants without a scope, sorted, each once.
    pub async fn held_everywhere(&self) -> Vec<String> {
        let mut pace = Pace::new();
        let mut held = BTreeSet::new();
        for grant in self.unscoped() {
            for permission in grant.role.get().permissions.iter() {
                held.insert(permission);
                pace.pause().await;
            }
        }
        held.into_iter().map(str::to_owned).collect()
    }

    /// The highest level of the subject's grants without a scope; 0 when it has none.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.unscoped().map(|grant| grant.role.get().level).max().unwrap_or_default()
    }

    /// Whether the subject is in the platform tenant and has the level `PLATFORM_ADMIN`.
    #[must_use]
    pub fn is_platform_admin(&self) -> bool {
        self.tenant.get().is_platform && self.level() >= RoleLevel::PlatformAdmin as i32
    }

    /// The names of the subject's roles, sorted, each once.
    #[must_use]
    pub fn role_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.grants().map(|g| g.role.get().name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of a heap block with the overhead and rounding of glibc's `malloc`, in bytes.
    fn block(bytes: usize) -> usize {
        (bytes + size_of::<usize>()).next_multiple_of(16)
    }

    #[test]
    fn a_subject_with_five_roles_takes_less_than_300_bytes() {
        assert_eq!(size_of::<Grant>(), 16);
        assert_eq!(size_of::<Standing>(), 32);
        let reference_counts = 2 * size_of::<usize>();
        let standing =
            block(reference_counts + size_of::<Standing>()) + block(5 * size_of::<Grant>());
        // One cache entry: two ids, the pointer, usage data and two links. Then one slot of the
        // hash table at its lowest load. The cache also keeps half as many entries again for
        // evicted keys.
        let entry = 16 + 16 + size_of::<usize>() + 16 + 8;
        let slot = (4 + 1) * 16 / 7;
        let whole = standing + (entry + slot) * 3 / 2;
        assert!(whole < 300, "{whole}");
    }
}
