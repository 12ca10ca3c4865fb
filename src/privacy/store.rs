//! SQL for the table of wrapped data keys.
//!
//! - Rule: `works_in_no_tenant` (`migrations/0024_rewrap_data_keys.sql`) decides that only a
//!   transaction of no tenant sees the data keys of all tenants.
//! - Rule: `data_keys_not_by` (`migrations/0024_rewrap_data_keys.sql`) decides which data keys a
//!   rotation still has to wrap.
//! - Rule: `rewrap_data_key` (`migrations/0024_rewrap_data_keys.sql`) replaces a data key only if
//!   no other run replaced it since it was read.
//! - Rule: `count_data_keys` (`migrations/0024_rewrap_data_keys.sql`) counts the data keys of
//!   each master key.
//! - Rule: `destroy_data_key` (`migrations/0004_data_keys.sql`) deletes the data key with its
//!   tenant (trigger).

use uuid::Uuid;

use super::master::Wrapped;
use crate::{error::Result, ids::TenantId, pg::Tx};

/// The wrapped data key of the tenant that the transaction works in.
pub async fn get(tx: &mut Tx, tenant: TenantId) -> Result<Option<Wrapped>> {
    let row = sqlx::query_as!(
        Wrapped,
        r#"select wrapped as "bytes", wrapped_by as "by" from data_keys where tenant_id = $1"#,
        tenant.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row)
}

/// Inserts the data key of the tenant that the transaction works in, unless the tenant has a key.
pub async fn insert(tx: &mut Tx, tenant: TenantId, key: &Wrapped) -> Result<()> {
    sqlx::query!(
        r#"
        insert into data_keys (tenant_id, wrapped, wrapped_by) values ($1, $2, $3)
        on conflict (tenant_id) do nothing
        "#,
        tenant.0,
        key.bytes,
        key.by,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A row of the table `data_keys`.
pub struct Kept {
    pub tenant_id: Uuid,
    pub key: Wrapped,
}

/// Data keys not wrapped by `by`, in order of tenant id, starting after the tenant `after`.
pub async fn others(tx: &mut Tx, by: &str, after: Option<Uuid>, limit: i64) -> Result<Vec<Kept>> {
    let rows = sqlx::query!(
        r#"
        select tenant_id as "tenant_id!", wrapped as "wrapped!", wrapped_by as "wrapped_by!"
        from data_keys_not_by($1, $2, $3)
        "#,
        by,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let keys = rows.into_iter().map(|row| Kept {
        tenant_id: row.tenant_id,
        key: Wrapped { bytes: row.wrapped, by: row.wrapped_by },
    });
    Ok(keys.collect())
}

/// Replaces a tenant's data key, unless the key has changed since `old` was read. Returns whether
/// the key was replaced.
pub async fn rewrap(tx: &mut Tx, old: &Kept, new: &Wrapped) -> Result<bool> {
    let done = sqlx::query_scalar!(
        r#"select rewrap_data_key($1, $2, $3, $4) as "done!""#,
        old.tenant_id,
        old.key.bytes,
        new.bytes,
        new.by,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(done)
}

/// Number of data keys that each master key wraps.
pub async fn counts(tx: &mut Tx) -> Result<Vec<(String, i64)>> {
    let rows =
        sqlx::query!(r#"select wrapped_by as "by!", data_keys as "count!" from count_data_keys()"#)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows.into_iter().map(|row| (row.by, row.count)).collect())
}
