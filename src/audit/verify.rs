//! Verifies the audit trail by recomputing each tenant's chain, when an operator runs
//! `tenantry audit verify`. `chain.rs` decides which fields of an event the chain covers.
//!
//! Rule: `audited_tenants` (`migrations/0014_find_tenants.sql`) lists all tenants with a trail, and
//! only for the platform tenant.

use serde::{Deserialize, Serialize};

use super::{
    chain,
    store::{self, EventRow},
};
use crate::{concurrency::step::bounded, db::Db, error::Result, ids::TenantId};

/// Number of events that one statement reads.
const BATCH: i64 = 1000;

/// The last position of a chain and its hash. An operator can keep a copy outside of the database,
/// and compare the chain with the copy later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    pub tenant_id: uuid::Uuid,
    pub position: i64,
    /// The hash at that position, in base64url.
    pub hash: String,
}

/// The result for one tenant.
#[derive(Debug, Serialize, Deserialize)]
pub struct VerifiedTrail {
    /// The end of the valid part of the chain.
    #[serde(flatten)]
    pub head: Head,
    /// The faults. Only the first fault in the chain is listed, because the events after it can't
    /// be verified.
    pub faults: Vec<String>,
    /// The number of events that wait to be sealed. They are no fault, but they are not verified.
    #[serde(default)]
    pub unsealed: i64,
}

/// The tenants that have an audit trail, including deleted tenants. `platform` is the id of the
/// platform tenant, which may list all tenants.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn tenants(db: &Db, platform: TenantId) -> Result<Vec<TenantId>> {
    bounded(async {
        let mut tx = db.begin_without_cipher(platform).await?;
        store::audited_tenants(&mut tx).await
    })
    .await
}

/// Recomputes a tenant's chain, and checks that the chain contains `saved_head`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn verify(db: &Db, tenant: TenantId, saved_head: Option<&Head>) -> Result<VerifiedTrail> {
    let mut walk = Walk { position: 0, hash: Vec::new(), saved_head, passed_saved_head: false };
    let mut faults = Vec::new();
    while faults.is_empty() {
        let rows = store::read_batch_after(db, tenant, walk.position, BATCH).await?;
        if rows.is_empty() {
            break;
        }
        faults.extend(rows.iter().find_map(|row| walk.verify_next(row).err()));
    }
    let last = bounded(async {
        store::last_position(&mut db.begin_without_cipher(tenant).await?, tenant).await
    });
    let last = last.await?;
    if faults.is_empty() && last > walk.position {
        faults.push(missing_event(walk.position + 1));
    }
    let unsealed = bounded(async {
        store::count_unsealed(&mut db.begin_without_cipher(tenant).await?, tenant).await
    });
    let unsealed = unsealed.await?;
    faults.extend(lost_events(unsealed.lost));
    if let Some(saved_head) = saved_head.filter(|_| !walk.passed_saved_head) {
        let position = saved_head.position;
        faults.push(format!("the chain does not contain the kept hash of position {position}"));
    }
    let head = Head { tenant_id: tenant.0, position: walk.position, hash: chain::text(&walk.hash) };
    Ok(VerifiedTrail { head, faults, unsealed: unsealed.waiting })
}

/// The verified part of a chain, from its start to `position`.
struct Walk<'a> {
    position: i64,
    hash: Vec<u8>,
    saved_head: Option<&'a Head>,
    passed_saved_head: bool,
}

impl Walk<'_> {
    /// Verifies the next event. An error describes the fault.
    fn verify_next(&mut self, row: &EventRow) -> Result<(), String> {
        let next = self.position + 1;
        if row.position != next {
            return Err(missing_event(next));
        }
        let hash = chain::hash(row, next, &self.hash);
        if hash != row.hash {
            let id = row.event_id;
            return Err(format!(
                "the event at position {next} ({id}) was changed after it was added to the chain"
            ));
        }
        (self.position, self.hash) = (next, hash);
        self.passed_saved_head |= self.saved_head.is_some_and(|saved_head| {
            saved_head.position == next && saved_head.hash == chain::text(&self.hash)
        });
        Ok(())
    }
}

fn missing_event(position: i64) -> String {
    format!("the event at position {position} is missing, or its place in the chain is missing")
}

/// Describes the fault that events are neither in the chain nor in the queue of the sealer; `None`
/// when there are no such events.
fn lost_events(count: i64) -> Option<String> {
    let text = || format!("{count} events have no place in the chain and do not wait for one");
    (count > 0).then(text)
}
