//! What a subject holds.

use serde::Deserialize;
use uuid::Uuid;

use super::{Permission, Scope};
use crate::proto::v1::RoleLevel;

/// All that a decision about a subject depends on.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, read at once")]
pub struct Standing {
    /// The tenant's slug.
    pub tenant_slug: String,
    /// Whether the tenant is not suspended.
    pub tenant_active: bool,
    /// Whether the tenant is the platform.
    pub is_platform: bool,
    /// Whether the tenant has the user.
    pub user_known: bool,
    /// Whether the user is there and not disabled.
    pub user_active: bool,
    /// Whether the session that was asked about is the user's and live; false
    /// when none was asked about.
    pub session_live: bool,
    /// The roles that the subject has now.
    pub grants: Vec<Grant>,
}

/// A role that a subject has, and where it applies.
#[derive(Clone, Debug, Deserialize)]
pub struct Grant {
    /// The assignment.
    pub assignment_id: Uuid,
    /// The role.
    pub role_id: Uuid,
    /// The role's name.
    pub role_name: String,
    /// The role's level.
    pub level: i32,
    /// What it permits.
    pub permissions: Vec<String>,
    /// Where it applies; everywhere when `None`.
    pub scope: Option<Scope>,
}

impl Grant {
    /// Whether the role permits this, wherever it applies.
    #[must_use]
    pub fn permits(&self, wanted: &Permission<'_>) -> bool {
        self.permissions
            .iter()
            .filter_map(|held| Permission::parse(held))
            .any(|held| held.covers(wanted))
    }
}

impl Standing {
    /// The grants that apply everywhere. Only those count for what a subject
    /// may grant, and for methods' policies.
    pub fn unscoped(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.scope.is_none())
    }

    /// Whether the subject holds a permission everywhere; `text` may have
    /// wildcards, and is not held when malformed.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        Permission::parse(text)
            .is_some_and(|wanted| self.unscoped().any(|grant| grant.permits(&wanted)))
    }

    /// The highest level of the subject's roles, 0 without any.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.unscoped().map(|grant| grant.level).max().unwrap_or_default()
    }

    /// Whether the subject is of the platform's staff at its highest level.
    #[must_use]
    pub fn is_platform_admin(&self) -> bool {
        self.is_platform && self.level() >= RoleLevel::PlatformAdmin as i32
    }

    /// The names of the subject's roles, sorted, each once.
    #[must_use]
    pub fn role_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.grants.iter().map(|g| g.role_name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
