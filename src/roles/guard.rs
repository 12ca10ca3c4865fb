//! What nobody may do with roles, whatever permission they hold: grant what
//! they don't hold, reach above their level, or leave a tenant without an
//! administrator.

use uuid::Uuid;

use super::store::RoleRow;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{TenantId, UserId},
    permissions::Standing,
    proto::v1::{ErrorReason, RoleLevel},
};

/// The level from which on a user administers a tenant.
const ADMIN_LEVEL: i16 = RoleLevel::OrgAdmin as i16;

/// Checks that a role stands no higher than the caller and grants nothing that
/// the caller does not hold.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub fn may_grant(standing: &Standing, level: i16, permissions: &[String]) -> Result<()> {
    within_level(standing, level)?;
    if permissions.iter().all(|permission| standing.holds(permission)) {
        return Ok(());
    }
    Err(Error::refused(
        ErrorReason::GrantNotHeld,
        "a role can't grant what the caller does not hold, everywhere, itself",
    ))
}

/// Checks that a role, as it is, may be changed by the caller.
///
/// # Errors
/// `PERMISSION_DENIED` for a role above the caller's level, and for a system role
/// unless the caller administers the platform.
pub fn may_change(standing: &Standing, role: &RoleRow) -> Result<()> {
    within_level(standing, role.level)?;
    if role.is_system && !standing.is_platform_admin() {
        return Err(Error::refused(
            ErrorReason::SystemRole,
            "system roles are changed by the platform's staff alone",
        ));
    }
    Ok(())
}

/// Checks that a level is not above the caller's own.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub fn within_level(standing: &Standing, level: i16) -> Result<()> {
    if i32::from(level) > standing.level() {
        return Err(Error::refused(
            ErrorReason::LevelTooHigh,
            "it stands above the caller's level",
        ));
    }
    Ok(())
}

/// Checks that a user, by its highest role, is not above the caller's level.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub async fn user_within_level(
    tx: &mut TenantTx,
    tenant: TenantId,
    standing: &Standing,
    user: UserId,
) -> Result<()> {
    let level = sqlx::query_scalar!(
        r#"
        select coalesce(max(r.level), 0::smallint) as "level!"
        from role_assignments a
        join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
        where a.tenant_id = $1 and a.user_id = $2
          and (a.expires_at is null or a.expires_at > now())
        "#,
        tenant.0,
        user.0,
    )
    .fetch_one(tx.conn())
    .await?;
    within_level(standing, level)
}

/// Checks that all that a service account's roles permit is the caller's too: who makes
/// a key for it acts with them.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub async fn may_act_as(
    tx: &mut TenantTx,
    tenant: TenantId,
    standing: &Standing,
    account: UserId,
) -> Result<()> {
    let roles = sqlx::query!(
        r#"
        select distinct r.level, r.permissions
        from role_assignments a
        join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
        where a.tenant_id = $1 and a.user_id = $2
          and (a.expires_at is null or a.expires_at > now())
        "#,
        tenant.0,
        account.0,
    )
    .fetch_all(tx.conn())
    .await?;
    roles.iter().try_for_each(|role| may_grant(standing, role.level, &role.permissions))
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
