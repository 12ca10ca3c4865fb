//! A tenant keeps at least one administrator. Every change that could remove the last administrator
//! uses [`AdminGuard`]: an edit of a role, an unassignment, and the disabling or deletion of a
//! user. A role that is assigned can't be deleted, so the deletion of a role removes no
//! administrator.

use super::store;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::TenantId,
    proto::v1::{ErrorReason, RoleLevel},
};

/// The lowest level of a tenant's administrator.
const ADMIN_LEVEL: i16 = RoleLevel::OrgAdmin as i16;

/// Checks that a change leaves the tenant an administrator: an active user who has a role of
/// administrator level with the permission `*:*`, without a scope and without an expiry. The level
/// alone is not enough: a user whose role has no permissions can't administer the tenant.
pub struct AdminGuard {
    tenant: TenantId,
    /// The number of administrators before the change.
    admins_before: i64,
}

impl AdminGuard {
    /// Locks the tenant's row and counts its administrators. Call this before the change. The lock
    /// serializes such changes. Otherwise two administrators could remove each other concurrently.
    ///
    /// # Errors
    /// Returns `NOT_FOUND` when the tenant was deleted.
    pub async fn lock_and_count(tx: &mut TenantTx, tenant: TenantId) -> Result<Self> {
        crate::tenants::store::lock(tx, tenant).await?;
        Ok(Self { tenant, admins_before: store::count_admins(tx, tenant, ADMIN_LEVEL).await? })
    }

    /// Checks that an administrator is left, if the tenant had one before the change. Call this
    /// after the change.
    ///
    /// # Errors
    /// Returns `FAILED_PRECONDITION` when the change removed the last administrator.
    pub async fn check_after_change(self, tx: &mut TenantTx) -> Result<()> {
        if self.admins_before > 0 && store::count_admins(tx, self.tenant, ADMIN_LEVEL).await? == 0 {
            return Err(Error::refused(
                ErrorReason::LastOrgAdmin,
                "the change would leave the tenant without an administrator",
            ));
        }
        Ok(())
    }
}
