//! SQL for idempotency records.

use std::time::Duration;

use uuid::Uuid;

use super::Key;
use crate::{db::TenantTx, error::Result, pg::interval};

/// Lifetime of a record.
pub const LIFETIME: Duration = Duration::from_hours(24);

/// A record without its key.
pub(super) struct Record {
    /// The keyed fingerprint of the request.
    pub(super) fingerprint: Vec<u8>,
    /// The sealed response.
    pub(super) response: Vec<u8>,
}

/// Locks the key until the transaction ends. Other transactions wait here for the same key.
///
/// This advisory lock is identified by two numbers, and the locks of the service's workers by one
/// number. In Postgres, locks of these two kinds never conflict. Otherwise a client could choose a
/// request id with the same number as the lock of a worker, and so stop the worker.
pub(super) async fn lock(tx: &mut TenantTx, key: &Key<'_>) -> Result<()> {
    let name = format!("{} {} {}", key.actor_or_nil(), key.method, key.request_id);
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtext($1), hashtext($2))",
        key.tenant.to_string(),
        name
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Reads the record of a request, unless the record has expired.
pub(super) async fn find(tx: &mut TenantTx, key: &Key<'_>) -> Result<Option<Record>> {
    let record = sqlx::query_as!(
        Record,
        r#"
        select fingerprint, response from idempotency_records
        where tenant_id = $1 and actor_id = $2 and method = $3 and request_id = $4
          and created_at > now() - $5::interval
        "#,
        key.tenant.0,
        key.actor_or_nil(),
        key.method,
        key.request_id,
        interval(LIFETIME)?,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(record)
}

/// Stores a record, or replaces an expired record. The record is deleted together with the resource
/// `created_id`.
pub(super) async fn save(
    tx: &mut TenantTx,
    key: &Key<'_>,
    record: &Record,
    created_id: Uuid,
) -> Result<()> {
    sqlx::query!(
        r#"
        insert into idempotency_records
            (tenant_id, actor_id, method, request_id, fingerprint, response, made_id)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (tenant_id, actor_id, method, request_id) do update
        set fingerprint = excluded.fingerprint, response = excluded.response,
            made_id = excluded.made_id, created_at = excluded.created_at
        "#,
        key.tenant.0,
        key.actor_or_nil(),
        key.method,
        key.request_id,
        record.fingerprint,
        record.response,
        created_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
