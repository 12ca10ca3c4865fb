//! What a subject holds.

use std::{collections::BTreeSet, mem::size_of, sync::Arc};

use uuid::Uuid;

use super::{
    Permission, Scope,
    assigned::AssignedScope,
    compiled::{PermissionSet, Shared},
};
use crate::{clock, concurrency::pace::Pace, proto::v1::RoleLevel};

/// What the allocator adds to a block, in bytes, about.
const BLOCK: usize = 16;

/// All that a decision about a subject depends on. Its parts that others share
/// are shared in memory too.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The subject's tenant.
    pub tenant: Arc<Shared<Tenant>>,
    /// Whether the tenant has the user, and it may act.
    pub user: UserStanding,
    /// The roles that the subject has; those that have ended don't count.
    pub grants: Box<[Grant]>,
    /// The bytes that it takes in the cache, as they were when it was kept there.
    pub weight: u32,
}

/// What decisions need to know of a tenant.
#[derive(Debug)]
pub struct Tenant {
    /// The slug.
    pub slug: String,
    /// Whether it is not suspended.
    pub active: bool,
    /// Whether it is the platform.
    pub is_platform: bool,
    /// Whether API keys count in the place of tokens.
    pub takes_api_keys: bool,
}

/// What decisions need to know of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserStanding {
    /// The tenant has no such user.
    Unknown,
    /// The user is disabled.
    Disabled,
    /// The user may act.
    Active,
}

/// What decisions need to know of a role.
#[derive(Debug)]
pub struct Role {
    /// The role.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its level.
    pub level: i32,
    /// What it permits.
    pub permissions: PermissionSet,
}

/// A role that a subject has, and where and how long it applies. There are as
/// many in memory as the subjects in use have roles: two words each, since most
/// apply everywhere and for good.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The role.
    pub role: Arc<Shared<Role>>,
    limits: Option<Box<Limits>>,
}

/// Where and how long a grant applies.
#[derive(Clone, Debug)]
struct Limits {
    scope: Option<AssignedScope>,
    expires_at: Option<i64>,
}

impl Grant {
    /// A role within a scope, everywhere when `None`, until a time in seconds
    /// since 1970, for good when `None`.
    #[must_use]
    pub fn new(role: Arc<Shared<Role>>, scope: Option<Scope>, expires_at: Option<i64>) -> Self {
        let scope = scope.map(AssignedScope::compile);
        let limited = scope.is_some() || expires_at.is_some();
        Self { role, limits: limited.then(|| Box::new(Limits { scope, expires_at })) }
    }

    /// Where it applies; everywhere when `None`.
    #[must_use]
    pub fn scope(&self) -> Option<&AssignedScope> {
        self.limits.as_deref()?.scope.as_ref()
    }

    /// Whether it applies to a request's scope.
    #[must_use]
    pub fn applies(&self, requested: &Scope) -> bool {
        self.scope().is_none_or(|scope| scope.applies(requested))
    }

    /// The memory that it takes besides its role, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let limits = self.limits.as_deref();
        let limits = limits.map_or(0, |limits| {
            BLOCK + size_of::<Limits>() + limits.scope.as_ref().map_or(0, AssignedScope::bytes)
        });
        size_of::<Self>() + limits
    }

    /// Whether the role permits this, wherever it applies.
    #[must_use]
    pub fn permits(&self, wanted: &Permission<'_>) -> bool {
        self.role.get().permissions.covers(wanted)
    }

    /// When it ends, in seconds since 1970; never when `None`.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        self.limits.as_ref().and_then(|limits| limits.expires_at)
    }

    /// Whether it has not ended. It takes no writer for it to end. The clock is
    /// read only where there is an end.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.expires_at().is_none_or(|end| end > clock::now().unix_timestamp())
    }
}

impl Standing {
    /// Whether the user and its tenant may act at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.user == UserStanding::Active && self.tenant.get().active
    }

    /// The memory that it takes itself, without its tenant and roles, in bytes, about: with
    /// the blocks that it is in.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let counts = 2 * size_of::<usize>();
        let grants = self.grants.iter().map(Grant::bytes).sum::<usize>();
        counts + size_of::<Self>() + grants + 2 * BLOCK
    }

    /// Whether a part that it shares with others has changed since.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.tenant.is_stale() || self.grants.iter().any(|grant| grant.role.is_stale())
    }

    /// The grants that have not ended.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.in_force())
    }

    /// The grants that apply everywhere. Only those count for what a subject
    /// may grant, and for methods' policies.
    pub fn unscoped(&self) -> impl Iterator<Item = &Grant> {
        self.grants().filter(|grant| grant.scope().is_none())
    }

    /// Whether the subject holds a permission everywhere; `text` may have
    /// wildcards, and is not held when malformed.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        Permission::parse(text)
            .is_some_and(|wanted| self.unscoped().any(|grant| grant.permits(&wanted)))
    }

    /// The permissions that the subject holds everywhere, sorted, each once.
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

    /// The highest level of the subject's roles, 0 without any.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.unscoped().map(|grant| grant.role.get().level).max().unwrap_or_default()
    }

    /// Whether the subject is of the platform's staff at its highest level.
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

    /// What the allocator adds to a block and rounds it up to (glibc's malloc).
    fn block(bytes: usize) -> usize {
        (bytes + size_of::<usize>()).next_multiple_of(16)
    }

    #[test]
    fn a_subject_with_five_roles_takes_less_than_300_bytes() {
        assert_eq!(size_of::<Grant>(), 16);
        assert_eq!(size_of::<Standing>(), 32);
        let counts = 2 * size_of::<usize>();
        let standing = block(counts + size_of::<Standing>()) + block(5 * size_of::<Grant>());
        // The cache's: both ids and the pointer, what it knows of their use, and two
        // links; then a slot of its table at the least load. It keeps half as many
        // entries again for what it has dropped.
        let entry = 16 + 16 + size_of::<usize>() + 16 + 8;
        let slot = (4 + 1) * 16 / 7;
        let whole = standing + (entry + slot) * 3 / 2;
        assert!(whole < 300, "{whole}");
    }
}
