//! Seals events: gives them their positions in the chain. Only the replica that holds the lock
//! seals. If a replica stops, another replica seals the remaining events.
//!
//! - Rule: `audit_backlog` (`migrations/0022_seal_audit_events.sql`) decides whether events wait
//!   to be sealed or sent.
//! - Rule: `read_unsealed` (`migrations/0022_seal_audit_events.sql`) decides the order of the
//!   chain, and lets one replica at a time seal.
//! - Rule: `seal_events` (`migrations/0022_seal_audit_events.sql`) writes positions once, and
//!   puts the events into the outbox.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    chain,
    store::{self, EventRow},
};
use crate::{db::Db, error::Result};

/// Maximum number of events that one transaction seals.
pub const BATCH: usize = 500;

/// Positions and hashes to be written, as parallel arrays.
#[derive(Default)]
struct ChainPositions {
    tenants: Vec<Uuid>,
    events: Vec<Uuid>,
    positions: Vec<i64>,
    hashes: Vec<Vec<u8>>,
}

/// Seals waiting events, at most [`BATCH`]; returns their number.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn seal(db: &Db) -> Result<usize> {
    if !store::has_unsealed(db).await? {
        return Ok(0);
    }
    let mut tx = db.connections().begin().await?;
    let rows = store::read_unsealed(&mut tx, BATCH).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let chain_positions = ChainPositions::of(&rows);
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
    /// Gives each event the position after the last event of its tenant.
    fn of(events: &[EventRow]) -> Self {
        let mut chain_positions = Self::default();
        let mut last_by_tenant: HashMap<Uuid, (i64, Vec<u8>)> = HashMap::new();
        for event in events {
            let before = last_by_tenant
                .entry(event.tenant_id)
                .or_insert_with(|| (event.position, event.hash.clone()));
            let position = before.0 + 1;
            let hash = chain::hash(event, position, &before.1);
            *before = (position, hash.clone());
            chain_positions.tenants.push(event.tenant_id);
            chain_positions.events.push(event.event_id);
            chain_positions.positions.push(position);
            chain_positions.hashes.push(hash);
        }
        chain_positions
    }
}
