//! Seals events: adds each event to its tenant's hash chain, with a position and a hash. A lock in
//! Postgres lets one replica at a time seal. If that replica stops, another replica seals the
//! remaining events.
//!
//! - Rule: `audit_backlog` (`migrations/0022_seal_audit_events.sql`) decides whether there are
//!   events that are not sealed or not sent yet.
//! - Rule: `read_unsealed` (`migrations/0044_trim_audit_events.sql`) decides the order of the
//!   chain, and lets one replica at a time seal.
//! - Rule: `seal_events` (`migrations/0022_seal_audit_events.sql`) writes positions once, and
//!   puts the events into the outbox.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    WORKER_SHARE, chain,
    store::{self, EventRow},
};
use crate::{db::Db, error::Result, ids::TenantId};

/// Maximum number of events that one transaction seals.
pub const BATCH: usize = 500;

/// Positions and hashes to write, as parallel arrays with one element per event.
#[derive(Default)]
struct ChainPositions {
    tenants: Vec<Uuid>,
    events: Vec<Uuid>,
    positions: Vec<i64>,
    hashes: Vec<Vec<u8>>,
}

/// Seals at most [`BATCH`] events. Returns the number of sealed events.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn seal(db: &Db) -> Result<usize> {
    if !store::has_unsealed(db).await? {
        return Ok(0);
    }
    let mut tx = db.postgres().begin_in_share(WORKER_SHARE, TenantId::UNKNOWN).await?;
    let rows = store::read_unsealed(&mut tx, BATCH).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let chain_positions = ChainPositions::assign(&rows);
    store::seal(
        &mut tx,
        &chain_positions.tenants,
        &chain_positions.events,
        &chain_positions.positions,
        &chain_positions.hashes,
    )
    .await?;
    tx.commit().await?;
    Ok(rows.len())
}

impl ChainPositions {
    /// Assigns to each event the next position in the chain of its tenant. In `events`, `position`
    /// and `hash` are not those of the event itself, but those of the tenant's last sealed event.
    fn assign(events: &[EventRow]) -> Self {
        let mut chain_positions = Self::default();
        let mut last_by_tenant: HashMap<Uuid, (i64, Vec<u8>)> = HashMap::new();
        for event in events {
            let (last_position, last_hash) = last_by_tenant
                .entry(event.tenant_id)
                .or_insert_with(|| (event.position, event.hash.clone()));
            let position = *last_position + 1;
            let hash = chain::hash(event, position, last_hash);
            (*last_position, *last_hash) = (position, hash.clone());
            chain_positions.tenants.push(event.tenant_id);
            chain_positions.events.push(event.event_id);
            chain_positions.positions.push(position);
            chain_positions.hashes.push(hash);
        }
        chain_positions
    }
}
