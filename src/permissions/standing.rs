//! A subject's standing: all data of a subject that decisions depend on.

use std::{collections::BTreeSet, mem::size_of, sync::Arc};

use uuid::Uuid;

use super::{
    Permission, Scope,
    assigned_scope::AssignedScope,
    compiled::{Invalidatable, PermissionSet},
};
use crate::{clock, concurrency::pace::Pace, proto::v1::RoleLevel};

/// Approximate overhead of the allocator for each block, in bytes.
const BLOCK_OVERHEAD: usize = 16;

/// The tenant, the state and the grants (role assignments) of a subject. The tenant and the roles
/// are shared in memory with the standings of other subjects.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The subject's tenant.
    pub tenant: Arc<Invalidatable<Tenant>>,
    /// Whether the subject exists in the tenant and is active.
    pub user: UserStanding,
    /// The subject's role assignments, including expired assignments, which decisions ignore.
    pub grants: Box<[Grant]>,
    /// The weight of this standing in the cache, in bytes; 0 until the standing is cached.
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
    pub accepts_api_key_bearer: bool,
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
    /// The level of the role. A higher level has more power.
    pub level: i32,
    /// The permissions of the role.
    pub permissions: PermissionSet,
}

/// An assignment of a role to a subject, with the scope and the expiry of the assignment. The cache
/// has a grant for each assignment of each cached subject. So a grant takes only two machine words
/// if it has neither a scope nor an expiry, like most grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The assigned role.
    pub role: Arc<Invalidatable<Role>>,
    restrictions: Option<Box<Restrictions>>,
}

/// The scope and the expiry of an assignment.
#[derive(Clone, Debug)]
struct Restrictions {
    scope: Option<AssignedScope>,
    expires_at: Option<i64>,
}

impl Grant {
    /// Creates a grant. A `scope` of `None` applies everywhere. `expires_at` is in seconds since
    /// 1970; `None` means that the grant never expires.
    #[must_use]
    pub fn new(
        role: Arc<Invalidatable<Role>>,
        scope: Option<Scope>,
        expires_at: Option<i64>,
    ) -> Self {
        let scope = scope.map(AssignedScope::compile);
        let is_restricted = scope.is_some() || expires_at.is_some();
        let restrictions = is_restricted.then(|| Box::new(Restrictions { scope, expires_at }));
        Self { role, restrictions }
    }

    /// The scope; `None` applies everywhere.
    #[must_use]
    pub fn scope(&self) -> Option<&AssignedScope> {
        self.restrictions.as_deref()?.scope.as_ref()
    }

    /// Whether the grant applies to the scope of a request.
    #[must_use]
    pub fn applies(&self, requested: &Scope) -> bool {
        self.scope().is_none_or(|scope| scope.applies(requested))
    }

    /// Approximate memory use without the role, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let restrictions = self.restrictions.as_deref();
        let restrictions_bytes = restrictions.map_or(0, |restrictions| {
            BLOCK_OVERHEAD
                + size_of::<Restrictions>()
                + restrictions.scope.as_ref().map_or(0, AssignedScope::bytes)
        });
        size_of::<Self>() + restrictions_bytes
    }

    /// Whether the role has this permission. Ignores the scope of the grant.
    #[must_use]
    pub fn permits(&self, permission: &Permission<'_>) -> bool {
        self.role.get().permissions.covers(permission)
    }

    /// The expiry of the grant, in seconds since 1970; `None` means never.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.restrictions.as_ref().and_then(|restrictions| restrictions.expires_at)
    }

    /// Whether the grant has not expired yet. The clock is read only for a grant with an expiry.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.expires_at().is_none_or(|expiry| expiry > clock::now().unix_timestamp())
    }
}

impl Standing {
    /// Whether both the subject and its tenant are active.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.user == UserStanding::Active && self.tenant.get().active
    }

    /// Approximate memory use without the tenant and the roles, in bytes. Includes the overhead of
    /// the allocator.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // A standing has two blocks: one for the `Arc` with its two reference counts, and one for
        // the grants.
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
    pub fn unexpired_grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.is_in_force())
    }

    /// The grants without a scope that have not expired. These grants apply everywhere. The
    /// policies of methods use only these grants of a caller. The rule for power over others also
    /// uses only these grants of the caller.
    pub fn unscoped_grants(&self) -> impl Iterator<Item = &Grant> {
        self.unexpired_grants().filter(|grant| grant.scope().is_none())
    }

    /// Whether the subject holds this permission in a grant without a scope. The permission may
    /// have wildcards. Returns false when the permission is malformed.
    #[must_use]
    pub fn holds(&self, permission: &str) -> bool {
        Permission::parse(permission).is_some_and(|permission| {
            self.unscoped_grants().any(|grant| grant.permits(&permission))
        })
    }

    /// The permissions that the subject holds in grants without a scope, sorted, each once.
    pub async fn held_everywhere(&self) -> Vec<String> {
        let mut pace = Pace::new();
        let mut permissions = BTreeSet::new();
        for grant in self.unscoped_grants() {
            for permission in grant.role.get().permissions.iter() {
                permissions.insert(permission);
                pace.pause().await;
            }
        }
        permissions.into_iter().map(str::to_owned).collect()
    }

    /// The highest level of the roles that the subject holds without a scope; 0 without such a
    /// role.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.unscoped_grants().map(|grant| grant.role.get().level).max().unwrap_or_default()
    }

    /// Whether the subject is in the platform tenant and has the level `PLATFORM_ADMIN`.
    #[must_use]
    pub fn is_platform_admin(&self) -> bool {
        self.tenant.get().is_platform && self.level() >= RoleLevel::PlatformAdmin as i32
    }

    /// The names of the subject's roles, sorted, each once.
    #[must_use]
    pub fn role_names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.unexpired_grants().map(|grant| grant.role.get().name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of a heap block with the overhead and rounding of glibc's `malloc`, in bytes.
    fn block_bytes(bytes: usize) -> usize {
        (bytes + size_of::<usize>()).next_multiple_of(16)
    }

    #[test]
    fn a_subject_with_five_roles_takes_less_than_300_bytes() {
        assert_eq!(size_of::<Grant>(), 16);
        assert_eq!(size_of::<Standing>(), 32);
        let reference_counts = 2 * size_of::<usize>();
        let standing = block_bytes(reference_counts + size_of::<Standing>())
            + block_bytes(5 * size_of::<Grant>());
        // A cache entry has two ids, the pointer, usage data and two links.
        let entry = 16 + 16 + size_of::<usize>() + 16 + 8;
        // A slot of the hash table has 4 + 1 bytes. After the table has grown, only 7 of 16 slots
        // are used.
        let slot = (4 + 1) * 16 / 7;
        // The cache also keeps entries for evicted keys: half as many as for cached keys.
        let total = standing + (entry + slot) * 3 / 2;
        assert!(total < 300, "{total}");
    }
}
