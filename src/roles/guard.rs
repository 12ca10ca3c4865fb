//! What nobody may do with roles, whatever they hold: change a system role, or leave a
//! tenant without an administrator. What it takes to give and take roles is the rule
//! for power over others ([`crate::power`]).

use uuid::Uuid;

use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::TenantId,
    proto::v1::{ErrorReason, RoleLevel},
};

/// The level from which on a user administers a tenant.
const ADMIN_LEVEL: i16 = RoleLevel::OrgAdmin as i16;

/// Checks that a role may be made, changed or deleted.
///
/// # Errors
/// `PERMISSION_DENIED` for a system role, unless by a platform administrator.
pub fn may_change(is_system: bool, by_platform_admin: bool) -> Result<()> {
    if is_system && !by_platform_admin {
        return Err(Error::refused(
            ErrorReason::SystemRole,
            "system roles are the platform's administrators' alone",
        ));
    }
    Ok(())
}

/// Watches that a change leaves the tenant an administrator: an active user
/// with an administrator's role that permits everything, everywhere and for
/// good. The level alone would let a tenant lock itself out with an empty role.
pub struct AdminGuard {
    tenant: TenantId,
    before: i64,
}

impl AdminGuard {
    /// Before the change. From here on such changes wait for one another, so
    /// that two administrators can't remove each other.
    ///
    /// # Errors
    /// `NOT_FOUND` when the tenant was deleted.
    pub async fn watch(tx: &mut TenantTx, tenant: TenantId) -> Result<Self> {
        crate::tenants::store::lock(tx, tenant).await?;
        Ok(Self { tenant, before: count(tx, tenant.0).await? })
    }

    /// After the change.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it took the last administrator.
    pub async fn check(self, tx: &mut TenantTx) -> Result<()> {
        if self.before > 0 && count(tx, self.tenant.0).await? == 0 {
            return Err(Error::refused(
                ErrorReason::LastOrgAdmin,
                "the tenant would be left without an administrator",
            ));
        }
        Ok(())
    }
}

async fn count(tx: &mut TenantTx, tenant: Uuid) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from role_assignments a
        join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
        join users u on u.tenant_id = a.tenant_id and u.user_id = a.user_id
        where a.tenant_id = $1 and r.level >= $2 and r.permissions @> array['*:*']
          and u.state = 'active' and a.scope is null and a.expires_at is null
        "#,
        tenant,
        ADMIN_LEVEL,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}
