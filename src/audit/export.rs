//! Exports the audit trail, when an operator runs `tenantry audit export`.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    chain::{self, Walk},
    page_size::PageSize,
    store::{self, CheckpointRow, EventRow},
};
use crate::{clock, db::Db, error::Result, ids::TenantId};

/// Maximum number of events that one statement reads.
const BATCH: i64 = 500;

/// A sealed event with all values that its hash covers, so that a reader of the export can verify
/// the chain.
#[derive(Serialize)]
pub struct ExportedEvent {
    tenant_id: Uuid,
    /// The position in the tenant's chain. The next export can continue after the last position of
    /// this export.
    pub position: i64,
    event_id: Uuid,
    kind: String,
    actor_tenant_id: Option<Uuid>,
    actor_id: Option<Uuid>,
    target_id: Option<Uuid>,
    session_id: Option<Uuid>,
    request_id: String,
    /// The client's address in base64url. The address is encrypted, as it is stored.
    ip: Option<String>,
    detail: Value,
    create_time: String,
    /// In base64url.
    hash: String,
}

/// The checkpoint at which a trail starts: the first line of an export.
#[derive(Serialize)]
pub struct ExportedCheckpoint {
    tenant_id: Uuid,
    /// The position of the last event that was deleted.
    pub position: i64,
    /// The hash of that event, in base64url.
    hash: String,
    /// The signed checkpoint, a JWT.
    checkpoint: String,
}

/// Reads the trail of one tenant, page by page.
pub struct Export<'a> {
    db: &'a Db,
    tenant: TenantId,
    page_size: PageSize,
}

impl<'a> Export<'a> {
    #[must_use]
    pub fn new(db: &'a Db, tenant: TenantId) -> Self {
        Self { db, tenant, page_size: PageSize::new(BATCH) }
    }

    /// Reads the checkpoint of the trail and the first events after it. The checkpoint is `None`
    /// when no event of the trail was deleted.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn read_start(&mut self) -> Result<(Option<ExportedCheckpoint>, Vec<ExportedEvent>)> {
        let mut checkpoint = store::read_checkpoint(self.db, self.tenant).await?;
        loop {
            let events = self.read_after(Walk::after(checkpoint.as_ref()).position).await?;
            // A server may have deleted events after the checkpoint was read. Then the events do
            // not start directly after this checkpoint, so everything is read again.
            let current = store::read_checkpoint(self.db, self.tenant).await?;
            if current == checkpoint {
                return Ok((checkpoint.map(ExportedCheckpoint::from), events));
            }
            checkpoint = current;
        }
    }

    /// Reads the next events after a position, in the order of the chain. Returns no events at the
    /// end of the chain.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn read_after(&mut self, position: i64) -> Result<Vec<ExportedEvent>> {
        let page_size = &mut self.page_size;
        let rows = store::read_batch_after(self.db, self.tenant, position, page_size).await?;
        Ok(rows.into_iter().map(ExportedEvent::from).collect())
    }

    /// The position of the trail's checkpoint; 0 when no event of the trail was deleted.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn checkpoint_position(&self) -> Result<i64> {
        let checkpoint = store::read_checkpoint(self.db, self.tenant).await?;
        Ok(Walk::after(checkpoint.as_ref()).position)
    }
}

impl From<CheckpointRow> for ExportedCheckpoint {
    fn from(row: CheckpointRow) -> Self {
        let (tenant_id, position, hash) =
            (row.tenant_id, row.position, chain::encode_hash(&row.hash));
        Self { tenant_id, position, hash, checkpoint: row.statement }
    }
}

impl From<EventRow> for ExportedEvent {
    fn from(row: EventRow) -> Self {
        Self {
            tenant_id: row.tenant_id,
            position: row.position,
            event_id: row.event_id,
            kind: row.kind,
            actor_tenant_id: row.actor_tenant_id,
            actor_id: row.actor_id,
            target_id: row.target_id,
            session_id: row.session_id,
            request_id: row.request_id,
            ip: row.ip.as_deref().map(chain::encode_hash),
            detail: row.detail,
            create_time: clock::rfc3339(row.created_at),
            hash: chain::encode_hash(&row.hash),
        }
    }
}
