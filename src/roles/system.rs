//! System roles: roles that only platform administrators change. Each new tenant gets the system
//! roles in this file.

use super::store::{self, NewRole};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{RoleId, TenantId},
    proto::v1::{ErrorReason, RoleLevel},
};

/// A system role.
pub struct SystemRole {
    pub name: &'static str,
    pub level: RoleLevel,
    pub permissions: &'static [&'static str],
}

const VIEWER: SystemRole =
    SystemRole { name: "viewer", level: RoleLevel::Viewer, permissions: &["tenant:read"] };

/// The name of the role of users who register in a tenant themselves.
pub const MEMBER: &str = SELF_REGISTRATION_ROLE.name;

/// The role of users who register in a tenant themselves.
pub const SELF_REGISTRATION_ROLE: SystemRole =
    SystemRole { name: "member", level: RoleLevel::Member, permissions: &["tenant:read"] };

/// The roles of a customer tenant. The administrator's role comes first.
pub const ORGANIZATION: &[SystemRole] = &[
    SystemRole { name: "org_admin", level: RoleLevel::OrgAdmin, permissions: &["*:*"] },
    SystemRole {
        name: "manager",
        level: RoleLevel::Manager,
        permissions: &[
            "permission:check",
            "role:read",
            "session:read",
            "tenant:read",
            "user:create",
            "user:read",
            "user:update",
        ],
    },
    SELF_REGISTRATION_ROLE,
    VIEWER,
];

/// The roles of the platform tenant. The administrator's role comes first.
pub const PLATFORM: &[SystemRole] = &[
    SystemRole { name: "platform_admin", level: RoleLevel::PlatformAdmin, permissions: &["*:*"] },
    VIEWER,
];

/// Inserts `roles` as the system roles of a new tenant. Returns the id of the first role.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn create(tx: &mut TenantTx, tenant: TenantId, roles: &[SystemRole]) -> Result<RoleId> {
    let mut first_id = None;
    for role in roles {
        let permissions: Vec<_> = role.permissions.iter().map(|p| (*p).to_owned()).collect();
        let new_role = NewRole {
            id: RoleId::new(),
            name: role.name,
            level: role.level as i16,
            permissions: &permissions,
            system: true,
        };
        store::insert(tx, tenant, &new_role).await?;
        first_id = first_id.or(Some(new_role.id));
    }
    first_id.ok_or_else(|| Error::defect("a new tenant needs a role"))
}

/// Checks that the caller may create, change or delete this role.
///
/// # Errors
/// Returns `PERMISSION_DENIED` for a system role, unless the caller is a platform administrator.
pub fn check_may_change(is_system: bool, is_platform_admin: bool) -> Result<()> {
    if is_system && !is_platform_admin {
        return Err(Error::refused(
            ErrorReason::SystemRole,
            "only platform administrators may change system roles",
        ));
    }
    Ok(())
}
