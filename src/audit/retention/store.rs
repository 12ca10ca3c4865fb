//! SQL for the retention of the audit trail.
//!
//! - Rule: `audit_trails` (`migrations/0044_trim_audit_events.sql`) decides in which trails events
//!   may be due.
//! - Rule: `trim_audit_events` (`migrations/0044_trim_audit_events.sql`) deletes events only in the
//!   order of the chain, and only together with a checkpoint. It lets one replica at a time delete.
//! - Rule: `stale_audit_checkpoints` (`migrations/0044_trim_audit_events.sql`) decides which
//!   checkpoints are signed again.
//! - Rule: `sign_audit_checkpoint` (`migrations/0044_trim_audit_events.sql`) replaces only the
//!   signature.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::super::store::{self, CheckpointRow, EventRow};
use crate::{db::Db, error::Result, ids::TenantId, pg::interval};

/// A tenant with sealed events.
pub(super) struct Trail {
    pub(super) tenant: TenantId,
    /// Age of the oldest sealed event, in seconds; `None` when the event is missing.
    pub(super) age: Option<f64>,
    /// Whether the retention of the oldest sealed event is over.
    pub(super) is_due: bool,
}

/// The next tenants with sealed events, at most `limit`, in order of their ids: the first is the
/// one after `after`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn trails(
    db: &Db,
    retention: Duration,
    after: TenantId,
    limit: i64,
) -> Result<Vec<Trail>> {
    let trails = sqlx::query_as!(
        Trail,
        r#"
        select tenant_id as "tenant!: TenantId", age, is_due as "is_due!"
        from audit_trails($1, $2, $3)
        "#,
        interval(retention)?,
        after.0,
        limit,
    );
    Ok(trails.fetch_all(db.executor()).await?)
}

/// The oldest events of a trail, and the two bounds that decide how many of them may be deleted.
pub(super) struct OldestEvents {
    pub(super) checkpoint: Option<CheckpointRow>,
    /// The retention of events up to this time is over.
    pub(super) due_until: OffsetDateTime,
    /// The position of the first event that is not sent to Redis yet; `None` when all are sent.
    pub(super) first_unsent: Option<i64>,
    /// In the order of the chain.
    pub(super) events: Vec<EventRow>,
}

/// Reads the first `limit` events after a trail's checkpoint.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn oldest_events(
    db: &Db,
    tenant: TenantId,
    retention: Duration,
    limit: i64,
) -> Result<OldestEvents> {
    let mut tx = db.begin_without_cipher(tenant).await?;
    let checkpoint = store::checkpoint(&mut tx, tenant).await?;
    let bounds = sqlx::query!(
        r#"
        select now() - $2::interval as "due_until!",
               (select min(position) from audit_outbox where tenant_id = $1) as first_unsent
        "#,
        tenant.0,
        interval(retention)?,
    )
    .fetch_one(tx.conn())
    .await?;
    let position = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.position);
    let events = store::read_after(&mut tx, tenant, position, limit).await?;
    let (due_until, first_unsent) = (bounds.due_until, bounds.first_unsent);
    Ok(OldestEvents { checkpoint, due_until, first_unsent, events })
}

/// Deletes the events of a trail after the position `from`, up to the position of `checkpoint`, and
/// stores this checkpoint. Returns the number of deleted events; `None` when another replica is
/// deleting, or has deleted events of this trail.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable; INTERNAL when an event is missing, is not sent, or is
/// younger than 30 days.
pub(super) async fn trim(db: &Db, from: i64, checkpoint: &CheckpointRow) -> Result<Option<i64>> {
    let deleted = sqlx::query_scalar!(
        "select trim_audit_events($1, $2, $3, $4, $5, $6)",
        checkpoint.tenant_id,
        from,
        checkpoint.position,
        checkpoint.hash,
        checkpoint.signed_by,
        checkpoint.statement,
    );
    Ok(deleted.fetch_one(db.executor()).await?)
}

/// The next checkpoints that the key `key_id` did not sign, at most `limit`, in order of the
/// tenants' ids: the first belongs to a tenant after `after`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn stale_checkpoints(
    db: &Db,
    key_id: &str,
    after: Uuid,
    limit: i64,
) -> Result<Vec<CheckpointRow>> {
    let checkpoints = sqlx::query_as!(
        CheckpointRow,
        r#"
        select tenant_id as "tenant_id!", position as "position!", hash as "hash!",
               signed_by as "signed_by!", statement as "statement!"
        from stale_audit_checkpoints($1, $2, $3)
        "#,
        key_id,
        after,
        limit,
    );
    Ok(checkpoints.fetch_all(db.executor()).await?)
}

/// Replaces the signature of a checkpoint, unless a newer checkpoint of the trail is stored.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn replace_signature(db: &Db, checkpoint: &CheckpointRow) -> Result<()> {
    sqlx::query!(
        "select sign_audit_checkpoint($1, $2, $3, $4, $5)",
        checkpoint.tenant_id,
        checkpoint.position,
        checkpoint.hash,
        checkpoint.signed_by,
        checkpoint.statement,
    )
    .execute(db.executor())
    .await?;
    Ok(())
}
