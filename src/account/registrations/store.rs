//! SQL for registrations that wait for the proof of their email.

use super::Registration;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    mail::Link,
    pg::interval,
    privacy::{SealContext, bound_row_bytes},
    proto::v1::ErrorReason,
};

/// Maximum number of registrations of one tenant that wait. Further registrations are refused.
const MAX_REGISTRATIONS: i64 = 10_000;

/// The name of the table. The ciphertext of each row is bound to this name.
const TABLE: &str = "registrations";

/// Stores a registration and its link.
///
/// # Errors
/// `OVERLOADED` when too many registrations of the tenant wait; UNAVAILABLE when Postgres or the
/// data key is unavailable.
pub async fn add(tx: &mut TenantTx, link: &Link, registration: &Registration) -> Result<()> {
    let waiting_count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from (
            select from registrations where tenant_id = $1 and expires_at > now() limit $2
        ) waiting
        "#,
        link.tenant.0,
        MAX_REGISTRATIONS,
    )
    .fetch_one(tx.conn())
    .await?;
    if waiting_count >= MAX_REGISTRATIONS {
        let text = "too many registrations wait for the proof of their email; try again later";
        return Err(Error::refused(ErrorReason::Overloaded, text));
    }
    let row = row_bytes(link);
    let seal_context = SealContext { table: TABLE, row: &row };
    let content = tx.cipher(link.tenant)?.seal_json(seal_context, registration)?;
    sqlx::query!(
        r#"
        insert into registrations (tenant_id, user_id, token_hash, content, expires_at)
        values ($1, $2, $3, $4, now() + $5)
        "#,
        link.tenant.0,
        link.user.0,
        link.hash,
        content,
        interval(link.purpose.lifetime())?,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Finds the registration of a link; `None` when the link is not valid, or the tenant is not
/// active.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable; `DATA_UNREADABLE` when the row was altered.
pub async fn find(tx: &mut TenantTx, link: &Link) -> Result<Option<Registration>> {
    let content = sqlx::query_scalar!(
        r#"
        select r.content from registrations r
        join tenants t on t.tenant_id = r.tenant_id
        where r.tenant_id = $1 and r.user_id = $2 and r.token_hash = $3
          and r.expires_at > clock_timestamp() and t.state = 'active'
        "#,
        link.tenant.0,
        link.user.0,
        link.hash,
    )
    .fetch_optional(tx.conn())
    .await?;
    content.map(|content| open(tx, link, &content)).transpose()
}

/// Deletes the registration of a link and returns it; `None` when the link is not valid. Of
/// concurrent calls, only one gets the registration.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable; `DATA_UNREADABLE` when the row was altered.
pub async fn take(tx: &mut TenantTx, link: &Link) -> Result<Option<Registration>> {
    let content = sqlx::query_scalar!(
        r#"
        delete from registrations
        where tenant_id = $1 and user_id = $2 and token_hash = $3
          and expires_at > clock_timestamp()
        returning content
        "#,
        link.tenant.0,
        link.user.0,
        link.hash,
    )
    .fetch_optional(tx.conn())
    .await?;
    content.map(|content| open(tx, link, &content)).transpose()
}

fn open(tx: &TenantTx, link: &Link, content: &[u8]) -> Result<Registration> {
    let row = row_bytes(link);
    tx.cipher(link.tenant)?.open_json(SealContext { table: TABLE, row: &row }, content)
}

/// The `row` bytes of the [`SealContext`]. They contain the hash of the token, so only the same
/// token opens the content.
fn row_bytes(link: &Link) -> Vec<u8> {
    bound_row_bytes(&link.user.0, &[&link.hash])
}
