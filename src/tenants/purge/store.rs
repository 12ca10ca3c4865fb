//! SQL for the purge of deleted tenants.
//!
//! - Rule: `tenants_to_purge` (`migrations/0029_purge_tenants.sql`) decides which tenants are
//!   purged.
//! - Rule: `purge_rows` (`migrations/0029_purge_tenants.sql`) deletes only rows of a deleted tenant,
//!   in the order of their references, and lets one replica at a time purge.
//! - Rule: `remove_deleted_tenant` (`migrations/0029_purge_tenants.sql`) decides when the tenant's
//!   last row is deleted.

use std::time::Duration;

use crate::{
    db::{Db, TenantTx},
    error::Result,
    ids::TenantId,
};

/// A deleted tenant that still has rows.
pub(super) struct DeletedTenant {
    pub(super) id: TenantId,
    /// Time since the deletion.
    pub(super) age: Duration,
}

/// The deleted tenants that still have rows, the oldest deletion first, at most `limit`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn deleted_tenants(db: &Db, limit: i64) -> Result<Vec<DeletedTenant>> {
    let rows = sqlx::query!(
        r#"select tenant_id as "id!: TenantId", age as "age!" from tenants_to_purge($1)"#,
        limit
    )
    .fetch_all(db.executor())
    .await?;
    let tenants = rows.into_iter().map(|row| DeletedTenant {
        id: row.id,
        age: Duration::try_from_secs_f64(row.age).unwrap_or_default(),
    });
    Ok(tenants.collect())
}

/// Deletes at most `limit` rows of the transaction's tenant, from one table. Returns the number of
/// deleted rows, which is 0 when no row is left; `None` when another replica is purging.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn delete_rows(tx: &mut TenantTx, limit: i64) -> Result<Option<i64>> {
    let deleted = sqlx::query_scalar!("select purge_rows($1)", limit).fetch_one(tx.conn()).await?;
    Ok(deleted)
}

/// Deletes the row of a deleted tenant. Returns false while audit events of the tenant are not
/// sealed or not sent, except when `is_overdue`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn remove(tx: &mut TenantTx, tenant: TenantId, is_overdue: bool) -> Result<bool> {
    let is_removed = sqlx::query_scalar!(
        r#"select remove_deleted_tenant($1, $2) as "done!""#,
        tenant.0,
        is_overdue
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(is_removed)
}
