//! SQL for the outbox and for links.
//!
//! - Rule: `queue_mail` (`migrations/0026_mail_outbox.sql`) enforces the bounds of the outbox.
//! - Rule: `claim_mails` (`migrations/0027_send_mails.sql`) decides which rows are due, and gives
//!   each row to one replica at a time.
//! - Rule: `retry_mail` (`migrations/0027_send_mails.sql`) accepts the time of the next attempt
//!   only from the worker that was the last to claim the row.
//! - Rule: `remove_mail` (`migrations/0027_send_mails.sql`) removes a row of any tenant.
//! - Rule: `mail_backlog` (`migrations/0027_send_mails.sql`) counts the rows of all tenants.

use std::time::Duration;

use uuid::Uuid;

use super::{kind::Kind, link::Link};
use crate::{
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
    pg::interval,
    proto::v1::ErrorReason,
};

/// A row of the outbox that this replica has claimed.
pub(super) struct ClaimedRow {
    pub tenant: TenantId,
    pub id: Uuid,
    pub kind: Kind,
    pub content: Vec<u8>,
    /// Number of attempts, including the current attempt.
    pub attempts: i32,
    pub is_expired: bool,
}

/// Queues a row for the tenant of the transaction. Returns false when the row was queued
/// before.
///
/// # Errors
/// `OVERLOADED` when too many rows of the kind wait; UNAVAILABLE when Postgres is unavailable.
pub(super) async fn queue(tx: &mut TenantTx, id: Uuid, kind: Kind, content: &[u8]) -> Result<bool> {
    let bounds = kind.bounds();
    let queued = sqlx::query_scalar!(
        r#"
        select queue_mail(
            p_mail => $1, p_kind => $2, p_content => $3, p_life => $4,
            p_of_tenant => $5, p_total => $6
        ) as "queued!"
        "#,
        id,
        kind.as_str(),
        content,
        interval(kind.lifetime())?,
        bounds.per_tenant,
        bounds.total,
    )
    .fetch_one(tx.conn())
    .await?;
    match queued.as_str() {
        "full" => Err(Error::refused(
            ErrorReason::Overloaded,
            "too many mails are waiting to be sent; try again later",
        )),
        queued => Ok(queued == "queued"),
    }
}

/// Claims rows that are due: at most `limit` rows, and at most `tenant_limit` rows of each tenant.
/// A claimed row is due again after `lease`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn claim(
    db: &Db,
    kinds: &[Kind],
    limit: i64,
    tenant_limit: i64,
    lease: Duration,
) -> Result<Vec<ClaimedRow>> {
    let names: Vec<_> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"
        select tenant_id as "tenant_id!", mail_id as "mail_id!", kind as "kind!",
               content as "content!", attempts as "attempts!", expired as "expired!"
        from claim_mails(p_kinds => $1, p_limit => $2, p_of_tenant => $3, p_lease => $4)
        "#,
        &names,
        limit,
        tenant_limit,
        interval(lease)?,
    )
    .fetch_all(db.executor())
    .await?;
    let claimed_rows = rows.into_iter().filter_map(|row| {
        let kind = *kinds.iter().find(|kind| kind.as_str() == row.kind)?;
        Some(ClaimedRow {
            tenant: TenantId(row.tenant_id),
            id: row.mail_id,
            kind,
            content: row.content,
            attempts: row.attempts,
            is_expired: row.expired,
        })
    });
    Ok(claimed_rows.collect())
}

/// Makes a row due again after `delay`, if no other worker has claimed the row since.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn retry(db: &Db, row: &ClaimedRow, delay: Duration) -> Result<()> {
    let (tenant, delay) = (row.tenant.0, interval(delay)?);
    sqlx::query!("select retry_mail($1, $2, $3, $4)", tenant, row.id, row.attempts, delay)
        .execute(db.executor())
        .await?;
    Ok(())
}

/// Removes a row.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn remove(db: &Db, tenant: TenantId, id: Uuid) -> Result<()> {
    sqlx::query!("select remove_mail($1, $2)", tenant.0, id).execute(db.executor()).await?;
    Ok(())
}

/// The number of rows in the outbox, and the age of the oldest row in seconds.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn backlog(db: &Db) -> Result<(i64, f64)> {
    let row =
        sqlx::query!(r#"select waiting as "waiting!", oldest as "oldest!" from mail_backlog()"#)
            .fetch_one(db.executor())
            .await?;
    Ok((row.waiting, row.oldest))
}

/// Stores a link. The link replaces the user's earlier link of the same purpose.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn set_link(tx: &mut TenantTx, link: &Link) -> Result<()> {
    sqlx::query!(
        r#"
        insert into mail_links (tenant_id, user_id, purpose, token_hash, expires_at)
        values ($1, $2, $3, $4, now() + $5)
        on conflict (tenant_id, user_id, purpose) do update
        set token_hash = excluded.token_hash, created_at = now(), expires_at = excluded.expires_at
        "#,
        link.tenant.0,
        link.user.0,
        link.purpose.as_str(),
        link.hash,
        interval(link.purpose.lifetime())?,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether a link is valid and the user and the tenant of the link are active.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn is_valid_link(tx: &mut TenantTx, link: &Link) -> Result<bool> {
    let is_valid = sqlx::query_scalar!(
        r#"
        select exists (
            select from mail_links l
            join users u on u.tenant_id = l.tenant_id and u.user_id = l.user_id
            join tenants t on t.tenant_id = l.tenant_id
            where l.tenant_id = $1 and l.user_id = $2 and l.purpose = $3 and l.token_hash = $4
              and l.expires_at > clock_timestamp()
              and u.state = 'active' and t.state = 'active'
        ) as "valid!"
        "#,
        link.tenant.0,
        link.user.0,
        link.purpose.as_str(),
        link.hash,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(is_valid)
}
