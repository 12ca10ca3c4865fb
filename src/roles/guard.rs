//! Checks that hold whatever the caller holds: system roles are protected, and a tenant keeps an
//! administrator. The rule that a caller gives and takes only what it holds is in `power/rule.rs`.

use super::store;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::TenantId,
    proto::v1::{ErrorReason, RoleLevel},
};

/// The lowest level of a tenant's administrator.
const ADMIN_LEVEL: i16 = RoleLevel::OrgAdmin as i16;

/// Checks that the caller may create, change or delete this role.
///
/// # Errors
/// Returns `PERMISSION_DENIED` for a system role, unless the caller is a platform administrator.
pub fn may_change(is_system: bool, by_platform_admin: bool) -> Result<()> {
    if is_system && !by_platform_admin {
        return Err(Error::refused(
            ErrorReason::SystemRole,
            "only platform administrators may change system roles",
        ));
    }
    Ok(())
}

/// Checks that a change leaves the tenant an administrator: an active user who has a role of
/// administrator level with the permission `*:*`, without a scope or an end. The level alone is
/// not enough: an administrator with a role without permissions could not administer the tenant.
pub struct AdminGuard {
    tenant: TenantId,
    before: i64,
}

impl AdminGuard {
    /// Call it before the change. It locks the tenant, so such changes run one after the other:
    /// otherwise two administrators could remove each other at the same time.
    ///
    /// # Errors
    /// Returns `NOT_FOUND` when the tenant was deleted.
    pub async fn watch(tx: &mut TenantTx, tenant: TenantId) -> Result<Self> {
        crate::tenants::store::lock(tx, tenant).await?;
        Ok(Self { tenant, before: store::count_admins(tx, tenant, ADMIN_LEVEL).await? })
    }

    /// Call it after the change.
    ///
    /// # Errors
    /// Returns `FAILED_PRECONDITION` when the change removed the last administrator.
    pub async fn check(self, tx: &mut TenantTx) -> Result<()> {
        if self.before > 0 && store::count_admins(tx, self.tenant, ADMIN_LEVEL).await? == 0 {
            return Err(Error::refused(
                ErrorReason::LastOrgAdmin,
                "the tenant would be left without an administrator",
            ));
        }
        Ok(())
    }
}
