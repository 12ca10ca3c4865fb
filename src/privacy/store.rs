//! SQL for the table of wrapped data keys.
//!
//! - Rule: `works_in_no_tenant` (`migrations/0024_rewrap_data_keys.sql`) decides that only a
//!   transaction in which no tenant is selected sees the data keys of all tenants.
//! - Rule: `data_keys_not_by` (`migrations/0024_rewrap_data_keys.sql`) decides which data keys a
//!   rotation still has to wrap.
//! - Rule: `rewrap_data_key` (`migrations/0024_rewrap_data_keys.sql`) replaces a data key only if
//!   no other run replaced it since it was read.
//! - Rule: `count_data_keys` (`migrations/0024_rewrap_data_keys.sql`) counts the data keys that
//!   each master key wraps.
//! - Rule: `destroy_data_key` (`migrations/0004_data_keys.sql`) deletes the data key with the row
//!   of its tenant (trigger). `mark_tenant_deleted` deletes it earlier.

use uuid::Uuid;

use super::master::WrappedKey;
use crate::{error::Result, ids::TenantId, pg::Tx};

/// The wrapped data key of the tenant that the transaction works in.
pub async fn get(tx: &mut Tx, tenant: TenantId) -> Result<Option<WrappedKey>> {
    let row = sqlx::query_as!(
        WrappedKey,
        r#"select wrapped as "bytes", wrapped_by as "by" from data_keys where tenant_id = $1"#,
        tenant.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row)
}

/// Inserts the data key of the tenant that the transaction works in, unless the tenant has a key.
pub async fn insert(tx: &mut Tx, tenant: TenantId, key: &WrappedKey) -> Result<()> {
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
pub struct StoredDataKey {
    pub tenant_id: Uuid,
    pub key: WrappedKey,
}

/// Data keys that the master key `by` does not wrap, in the order of the tenant ids. With `after`,
/// begins after this tenant id.
pub async fn wrapped_by_others(
    tx: &mut Tx,
    by: &str,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<StoredDataKey>> {
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
    let keys = rows.into_iter().map(|row| StoredDataKey {
        tenant_id: row.tenant_id,
        key: WrappedKey { bytes: row.wrapped, by: row.wrapped_by },
    });
    Ok(keys.collect())
}

/// Replaces a tenant's wrapped data key, unless it has changed since `old` was read. Returns
/// whether it was replaced.
pub async fn replace(tx: &mut Tx, old: &StoredDataKey, new: &WrappedKey) -> Result<bool> {
    let is_replaced = sqlx::query_scalar!(
        r#"select rewrap_data_key($1, $2, $3, $4) as "done!""#,
        old.tenant_id,
        old.key.bytes,
        new.bytes,
        new.by,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(is_replaced)
}

/// The master keys, each with the number of data keys that it wraps.
pub async fn counts(tx: &mut Tx) -> Result<Vec<(String, i64)>> {
    let rows =
        sqlx::query!(r#"select wrapped_by as "by!", data_keys as "count!" from count_data_keys()"#)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows.into_iter().map(|row| (row.by, row.count)).collect())
}
