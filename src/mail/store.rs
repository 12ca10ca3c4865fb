//! SQL for the outbox and for links.
//!
//! - Rule: `queue_mail` (`migrations/0052_mail_networks.sql`) enforces the bounds of the outbox.
//! - Rule: `claim_mails` (`migrations/0027_send_mails.sql`) decides which rows are due, and gives
//!   each row to one replica at a time.
//! - Rule: `retry_mail` (`migrations/0027_send_mails.sql`) accepts the time of the next attempt
//!   only from the worker that was the last to claim the row.
//! - Rule: `remove_mail` (`migrations/0027_send_mails.sql`) removes a row of any tenant.
//! - Rule: `mail_backlog` (`migrations/0027_send_mails.sql`) counts the rows of all tenants.

use std::time::Duration;

use uuid::Uuid;

use super::{
    kind::Kind,
    link::{Link, Purpose},
};
use crate::{
    db::{Db, TenantTx},
    email,
    error::{Error, Result},
    ids::TenantId,
    pg::interval,
    privacy::{Index, SealContext, bound_row_bytes},
    proto::v1::ErrorReason,
};

/// The name of the table of links, for which addresses are sealed.
const LINKS: &str = "mail_links";

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
/// before. `network` is a keyed hash of the network whose client requested the mail without a token.
///
/// # Errors
/// `OVERLOADED` when too many rows of the kind wait; UNAVAILABLE when Postgres is unavailable.
pub(super) async fn queue(
    tx: &mut TenantTx,
    id: Uuid,
    kind: Kind,
    content: &[u8],
    network: Option<Index>,
) -> Result<bool> {
    let bounds = kind.bounds();
    let queued = sqlx::query_scalar!(
        r#"
        select queue_mail(
            p_mail => $1, p_kind => $2, p_content => $3, p_life => $4, p_network => $5,
            p_of_tenant => $6, p_of_network => $7, p_total => $8
        ) as "queued!"
        "#,
        id,
        kind.as_str(),
        content,
        interval(kind.lifetime())?,
        network.as_ref().map(Index::as_slice),
        bounds.per_tenant,
        bounds.per_network,
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

/// Stores a link to this address. The link replaces the user's earlier link of the same purpose.
///
/// # Errors
/// UNAVAILABLE when Postgres or the data key is unavailable.
pub async fn set_link(tx: &mut TenantTx, link: &Link, address: &str) -> Result<()> {
    let cipher = tx.cipher(link.tenant)?;
    let address_index = email::blind_index(&cipher, &email::normalized(address));
    let content = if link.purpose == Purpose::EmailChange {
        let row = content_row(link, &address_index);
        Some(cipher.seal(SealContext { table: LINKS, row: &row }, address.as_bytes())?)
    } else {
        None
    };
    sqlx::query!(
        r#"
        insert into mail_links
            (tenant_id, user_id, purpose, token_hash, expires_at, address_index, content)
        values ($1, $2, $3, $4, now() + $5, $6, $7)
        on conflict (tenant_id, user_id, purpose) do update
        set token_hash = excluded.token_hash, created_at = now(), expires_at = excluded.expires_at,
            address_index = excluded.address_index, content = excluded.content
        "#,
        link.tenant.0,
        link.user.0,
        link.purpose.as_str(),
        link.hash,
        interval(link.purpose.lifetime())?,
        address_index.as_slice(),
        content,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A link that is valid, whose user and tenant are active, and whose address is still the email of the
/// user.
pub struct ValidLink {
    /// The address of a link of the purpose `EmailChange`, which becomes the email of the user.
    pub new_email: Option<String>,
}

/// Finds a valid link; `None` when the link is not valid.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable; `DATA_UNREADABLE` when the row was altered.
pub async fn find_link(tx: &mut TenantTx, link: &Link) -> Result<Option<ValidLink>> {
    let row = sqlx::query!(
        r#"
        select l.address_index, l.content
        from mail_links l
        join users u on u.tenant_id = l.tenant_id and u.user_id = l.user_id
        join tenants t on t.tenant_id = l.tenant_id
        where l.tenant_id = $1 and l.user_id = $2 and l.purpose = $3 and l.token_hash = $4
          and l.expires_at > clock_timestamp()
          and u.state = 'active' and t.state = 'active'
          and (l.content is not null or coalesce(l.address_index, u.email_index) = u.email_index)
        "#,
        link.tenant.0,
        link.user.0,
        link.purpose.as_str(),
        link.hash,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let new_email = match (row.content, row.address_index) {
        (Some(content), Some(address_index)) => {
            let row = content_row(link, &address_index);
            let seal_context = SealContext { table: LINKS, row: &row };
            let bytes = tx.cipher(link.tenant)?.open(seal_context, &content)?;
            let text = String::from_utf8(bytes);
            Some(text.map_err(|_| Error::defect("the address of a link is not UTF-8"))?)
        }
        _ => None,
    };
    // A link that changes the email has an address, and no other link has one.
    let is_complete = new_email.is_some() == (link.purpose == Purpose::EmailChange);
    Ok(is_complete.then_some(ValidLink { new_email }))
}

/// Deletes a link, so that it can't be used again.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn end_link(tx: &mut TenantTx, link: &Link) -> Result<()> {
    sqlx::query!(
        "delete from mail_links where tenant_id = $1 and user_id = $2 and purpose = $3",
        link.tenant.0,
        link.user.0,
        link.purpose.as_str(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The `row` bytes of the [`SealContext`] of an address. The address opens only with the same token,
/// and can't be moved to another link.
fn content_row(link: &Link, address_index: &[u8]) -> Vec<u8> {
    bound_row_bytes(&link.user.0, &[link.purpose.as_str().as_bytes(), &link.hash, address_index])
}
