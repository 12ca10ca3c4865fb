//! SQL that reads the input of the rule for power over others.

use futures_util::TryStreamExt;

use super::rule::Expiry;
use crate::{
    concurrency::pace::Pace,
    db::TenantTx,
    error::{Error, Result},
    ids::{ApiKeyId, RoleId, SessionId, SubjectId, TenantId},
    permissions::{self, Standing},
};

/// Locks a user or service account until the transaction ends. Other transactions that change the
/// subject's roles wait.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant has no such subject.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, subject: SubjectId) -> Result<()> {
    let row = sqlx::query_scalar!(
        r#"
        select true as "found!" from subjects where tenant_id = $1 and subject_id = $2
        for no key update
        "#,
        tenant.0,
        subject.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    row.map(drop).ok_or_else(Error::not_found)
}

/// The current standing of a subject. The roles of a disabled subject are included.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant does not exist.
pub async fn standing(tx: &mut TenantTx, tenant: TenantId, subject: SubjectId) -> Result<Standing> {
    let standing = permissions::standing_in_transaction(tx, tenant, subject, None).await?;
    standing.map(|(standing, _)| standing).ok_or_else(Error::not_found)
}

/// The current standing of a caller, and whether the caller's session or API key is live.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant does not exist.
pub async fn caller_standing(
    tx: &mut TenantTx,
    own_tenant: TenantId,
    caller: SubjectId,
    session: SessionId,
) -> Result<(Standing, bool)> {
    let standing =
        permissions::standing_in_transaction(tx, own_tenant, caller, Some(session)).await?;
    standing.ok_or_else(Error::not_found)
}

/// A role that a subject holds in addition to a given role.
pub struct HeldRole {
    /// The numeric value of a `RoleLevel`.
    pub level: i16,
    pub permissions: Vec<String>,
}

/// The other roles of all subjects that hold `role`. Each role is returned once.
pub async fn roles_of_holders(
    tx: &mut TenantTx,
    tenant: TenantId,
    role: RoleId,
) -> Result<Vec<HeldRole>> {
    let mut rows = sqlx::query_as!(
        HeldRole,
        r#"
        select r.level, r.permissions from roles r
        where r.tenant_id = $1 and r.role_id <> $2 and exists (
            select from role_assignments held
            join role_assignments besides
              on besides.tenant_id = held.tenant_id and besides.user_id = held.user_id
            where held.tenant_id = $1 and held.role_id = $2
              and (held.expires_at is null or held.expires_at > now())
              and besides.role_id = r.role_id
              and (besides.expires_at is null or besides.expires_at > now())
        )
        "#,
        tenant.0,
        role.0,
    )
    .fetch(tx.conn());
    let (mut roles, mut pace) = (Vec::new(), Pace::new());
    while let Some(role) = rows.try_next().await? {
        roles.push(role);
        pace.pause().await;
    }
    Ok(roles)
}

/// The expiry of an API key. A key that does not exist has already expired.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn api_key_expiry(tx: &mut TenantTx, tenant: TenantId, key: ApiKeyId) -> Result<Expiry> {
    let expiry = sqlx::query_scalar!(
        "select expires_at from api_keys where tenant_id = $1 and key_id = $2",
        tenant.0,
        key.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(expiry.map_or(Expiry::At(0), |at| Some(at).into()))
}
