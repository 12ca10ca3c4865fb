//! The roles that come with a tenant.

use super::store::{self, NewRole};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{RoleId, TenantId},
    proto::v1::RoleLevel,
};

/// A role that comes with a tenant.
pub struct SystemRole {
    /// Its name.
    pub name: &'static str,
    /// Its level.
    pub level: RoleLevel,
    /// What it permits.
    pub permissions: &'static [&'static str],
}

const VIEWER: SystemRole =
    SystemRole { name: "viewer", level: RoleLevel::Viewer, permissions: &["tenant:read"] };

/// The name of the role that a user gets who registers to join a tenant.
pub const MEMBER: &str = NEWCOMERS.name;

/// That role.
pub const NEWCOMERS: SystemRole =
    SystemRole { name: "member", level: RoleLevel::Member, permissions: &["tenant:read"] };

/// The roles of an organisation; its administrator's first.
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
    NEWCOMERS,
    VIEWER,
];

/// The roles of the platform tenant; its administrator's first.
pub const PLATFORM: &[SystemRole] = &[
    SystemRole { name: "platform_admin", level: RoleLevel::PlatformAdmin, permissions: &["*:*"] },
    VIEWER,
];

/// Gives a new tenant its roles, and returns the first.
///
/// # Errors
/// When Postgres is away.
pub async fn create(tx: &mut TenantTx, tenant: TenantId, roles: &[SystemRole]) -> Result<RoleId> {
    let mut first = None;
    for role in roles {
        let permissions: Vec<_> = role.permissions.iter().map(|p| (*p).to_owned()).collect();
        let new = NewRole {
            id: RoleId::new(),
            name: role.name,
            level: role.level as i16,
            permissions: &permissions,
            system: true,
        };
        store::insert(tx, tenant, &new).await?;
        first = first.or(Some(new.id));
    }
    first.ok_or_else(|| Error::defect("a tenant without roles"))
}
