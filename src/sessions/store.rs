//! Sessions in Postgres.

use sqlx::types::ipnet::IpNet;
use time::OffsetDateTime;

use crate::{
    db::TenantTx,
    error::Result,
    ids::{SessionId, TenantId, UserId},
    listing::Page,
};

/// A session as it is kept.
#[derive(Debug)]
pub struct SessionRow {
    /// The session.
    pub session_id: uuid::Uuid,
    /// The tenant.
    pub tenant_id: uuid::Uuid,
    /// Who signed in.
    pub user_id: uuid::Uuid,
    /// What the user calls the device.
    pub device_name: String,
    /// Where the sign-in came from.
    pub ip: Option<IpNet>,
    /// With which client.
    pub user_agent: String,
    /// When the user signed in.
    pub created_at: OffsetDateTime,
    /// When it was last refreshed.
    pub last_used_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// Whether its time is over, by Postgres's clock.
    pub expired: bool,
}

/// A session of the tenant; with `owner`, only if it is that user's.
pub async fn get(
    tx: &mut TenantTx,
    tenant: TenantId,
    session: SessionId,
    owner: Option<UserId>,
) -> Result<Option<SessionRow>> {
    let row = sqlx::query_as!(
        SessionRow,
        r#"
        select session_id, tenant_id, user_id, device_name, ip, user_agent,
               created_at, last_used_at, expires_at, revoked_at,
               expires_at <= now() as "expired!"
        from sessions
        where tenant_id = $1 and session_id = $2 and ($3::uuid is null or user_id = $3)
        "#,
        tenant.0,
        session.0,
        owner.map(|id| id.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row)
}

/// A page of a user's live sessions, by id.
pub async fn list_live(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    device_like: Option<&str>,
    page: &Page,
) -> Result<Vec<SessionRow>> {
    let rows = sqlx::query_as!(
        SessionRow,
        r#"
        select session_id, tenant_id, user_id, device_name, ip, user_agent,
               created_at, last_used_at, expires_at, revoked_at,
               expires_at <= now() as "expired!"
        from sessions
        where tenant_id = $1 and user_id = $2 and session_id > $3
          and revoked_at is null and expires_at > now()
          and ($4::text is null or device_name like $4)
        order by session_id
        limit $5
        "#,
        tenant.0,
        user.0,
        page.after,
        device_like,
        page.limit(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Revokes a session of the tenant, with `owner` only that user's; says whether
/// there is one. Revoking a revoked one keeps the first time and reason.
pub async fn revoke(
    tx: &mut TenantTx,
    tenant: TenantId,
    session: SessionId,
    owner: Option<UserId>,
    reason: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        update sessions
        set revoked_at = coalesce(revoked_at, clock_timestamp()),
            revoke_reason = coalesce(revoke_reason, $4)
        where tenant_id = $1 and session_id = $2 and ($3::uuid is null or user_id = $3)
        "#,
        tenant.0,
        session.0,
        owner.map(|id| id.0),
        reason,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes a user's sessions that are not revoked yet, but for `except`; says
/// how many.
pub async fn revoke_all(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    except: Option<SessionId>,
    reason: &str,
) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        update sessions set revoked_at = clock_timestamp(), revoke_reason = $4
        where tenant_id = $1 and user_id = $2 and revoked_at is null
          and session_id is distinct from $3
        "#,
        tenant.0,
        user.0,
        except.map(|id| id.0),
        reason,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
