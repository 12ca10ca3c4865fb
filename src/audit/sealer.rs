//! Gives events their positions in the chain. One replica at a time does this, whichever takes
//! the lock first. Events that a stopped process left unsealed are sealed by another.
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
struct Places {
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
    let places = Places::of(&rows);
    store::seal(&mut tx, &places.tenants, &places.events, &places.positions, &places.hashes)
        .await?;
    tx.commit().await?;
    Ok(rows.len())
}

impl Places {
    /// Places each event after the last event of its tenant.
    fn of(events: &[EventRow]) -> Self {
        let mut places = Self::default();
        let mut last: HashMap<Uuid, (i64, Vec<u8>)> = HashMap::new();
        for event in events {
            let before =
                last.entry(event.tenant_id).or_insert_with(|| (event.position, event.hash.clone()));
            let position = before.0 + 1;
            let hash = chain::hash(event, position, &before.1);
            *before = (position, hash.clone());
            places.tenants.push(event.tenant_id);
            places.events.push(event.event_id);
            places.positions.push(position);
            places.hashes.push(hash);
        }
        places
    }
}
