//! Tokens of password resets in Postgres.

use std::time::Duration;

use super::ResetToken;
use crate::{db::TenantTx, error::Result, pg::interval};

/// How long a token is good.
pub const LIFE: Duration = Duration::from_mins(10);

/// Keeps a user's token, in place of an earlier one.
pub async fn set(tx: &mut TenantTx, token: &ResetToken) -> Result<()> {
    sqlx::query!(
        r#"
        insert into password_resets (tenant_id, user_id, token_hash, expires_at)
        values ($1, $2, $3, now() + $4)
        on conflict (tenant_id, user_id) do update
        set token_hash = excluded.token_hash, created_at = now(), expires_at = excluded.expires_at
        "#,
        token.tenant.0,
        token.user.0,
        token.hash,
        interval(LIFE)?,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether a token is good, for a user and a tenant that are active.
pub async fn is_good(tx: &mut TenantTx, token: &ResetToken) -> Result<bool> {
    let good = sqlx::query_scalar!(
        r#"
        select exists (
            select from password_resets r
            join users u on u.tenant_id = r.tenant_id and u.user_id = r.user_id
            join tenants t on t.tenant_id = r.tenant_id
            where r.tenant_id = $1 and r.user_id = $2 and r.token_hash = $3
              and r.expires_at > clock_timestamp()
              and u.state = 'active' and t.state = 'active'
        ) as "good!"
        "#,
        token.tenant.0,
        token.user.0,
        token.hash,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(good)
}
