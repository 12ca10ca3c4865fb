//! Verifies the audit trail by recomputing each tenant's chain, when an operator runs
//! `tenantry audit verify`. `chain.rs` decides which fields of an event the chain covers.
//!
//! Rule: `audited_tenants` (`migrations/0044_trim_audit_events.sql`) lists all tenants with a
//! trail, and only for the platform tenant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    chain::{self, Walk, missing_event},
    checkpoint,
    page_size::PageSize,
    store::{self, CheckpointRow},
};
use crate::{
    concurrency::step::bounded, db::Db, error::Result, ids::TenantId, tokens::StatementKeys,
};

/// Maximum number of events of the chain that one statement reads.
const BATCH: i64 = 1000;

/// Maximum number of events that one statement compares with the chain.
const UNSEALED_BATCH: i64 = 10_000;

/// Maximum number of tenants that one statement lists.
const TENANT_BATCH: i64 = 1_000;

/// The last position of a chain, and the hash at this position. An operator can save a copy outside
/// of the database. A later run compares the chain with this saved head.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    pub tenant_id: Uuid,
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
    /// The position of the checkpoint, which is the position of the last deleted event. `None` when
    /// no event was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<i64>,
    /// The faults. Of the faults in the chain, only the first is listed, because the events after
    /// it can't be verified.
    pub faults: Vec<String>,
    /// The number of events that wait to be sealed. They are no fault, but they are not verified.
    #[serde(default)]
    pub unsealed: i64,
    /// Whether the event at the position of the saved head was deleted because its retention was
    /// over, so that its hash could not be compared.
    #[serde(skip)]
    pub kept_head_is_trimmed: bool,
}

/// The tenants that have or had an audit trail, including deleted tenants. `platform` is the id of
/// the platform tenant, which may list all tenants.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn tenants(db: &Db, platform: TenantId) -> Result<Vec<TenantId>> {
    let mut tenants = Vec::new();
    loop {
        let after = tenants.last().copied().unwrap_or(TenantId(Uuid::nil()));
        let page = bounded(async {
            let mut tx = db.begin_without_cipher(platform).await?;
            store::audited_tenants(&mut tx, after, TENANT_BATCH).await
        });
        let page = page.await?;
        if page.is_empty() {
            return Ok(tenants);
        }
        tenants.extend(page);
    }
}

/// Verifies the signature of a tenant's checkpoint, recomputes the chain after it, and checks that
/// the chain contains `saved_head`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn verify(
    db: &Db,
    keys: &StatementKeys,
    tenant: TenantId,
    saved_head: Option<&Head>,
) -> Result<VerifiedTrail> {
    loop {
        let checkpoint = store::read_checkpoint(db, tenant).await?;
        let trail = verify_after(db, keys, tenant, checkpoint.as_ref(), saved_head).await?;
        // The faults may have another cause: a server deleted events and moved the checkpoint while
        // the chain was read. Then the trail is verified again.
        if trail.faults.is_empty() || store::read_checkpoint(db, tenant).await? == checkpoint {
            return Ok(trail);
        }
    }
}

/// Verifies `checkpoint`, which was read before, and the trail after it.
async fn verify_after(
    db: &Db,
    keys: &StatementKeys,
    tenant: TenantId,
    checkpoint: Option<&CheckpointRow>,
    saved_head: Option<&Head>,
) -> Result<VerifiedTrail> {
    let checkpoint_fault = checkpoint.and_then(|row| checkpoint::verify(row, keys).err());
    // After a checkpoint that is not valid, nothing can be verified: the loop below does not run.
    let mut walk = Walk::after(checkpoint.filter(|_| checkpoint_fault.is_none()));
    let mut faults: Vec<_> = checkpoint_fault.into_iter().collect();
    let mut saved_hash = SavedHash::new(saved_head, &walk);
    let mut page_size = PageSize::new(BATCH);
    while faults.is_empty() {
        let rows = store::read_batch_after(db, tenant, walk.position, &mut page_size).await?;
        if rows.is_empty() {
            break;
        }
        faults.extend(rows.iter().find_map(|row| {
            let result = walk.verify_next(row);
            saved_hash.compare(&walk);
            result.err()
        }));
    }
    let last = bounded(async {
        store::last_position(&mut db.begin_without_cipher(tenant).await?, tenant).await
    });
    let last = last.await?;
    if faults.is_empty() && last > walk.position {
        faults.push(missing_event(walk.position + 1));
    }
    let (unsealed, lost_count) = count_unsealed(db, tenant).await?;
    faults.extend(lost_events_fault(lost_count));
    faults.extend(saved_hash.fault());
    let head =
        Head { tenant_id: tenant.0, position: walk.position, hash: chain::encode_hash(&walk.hash) };
    let (checkpoint, kept_head_is_trimmed) =
        (checkpoint.map(|row| row.position), saved_hash.is_trimmed);
    Ok(VerifiedTrail { head, checkpoint, faults, unsealed, kept_head_is_trimmed })
}

/// Compares the chain with the head of an earlier run.
struct SavedHash<'a> {
    head: Option<&'a Head>,
    /// Whether the walk has passed the position of the head with the same hash.
    was_found: bool,
    /// Whether the position of the head is before the start of the walk, so that there is nothing
    /// to compare.
    is_trimmed: bool,
}

impl<'a> SavedHash<'a> {
    fn new(head: Option<&'a Head>, start: &Walk) -> Self {
        let is_trimmed = head.is_some_and(|head| head.position < start.position);
        let mut saved_hash = Self { head, was_found: false, is_trimmed };
        saved_hash.compare(start);
        saved_hash
    }

    fn compare(&mut self, walk: &Walk) {
        self.was_found |= self.head.is_some_and(|head| {
            head.position == walk.position && head.hash == chain::encode_hash(&walk.hash)
        });
    }

    fn fault(&self) -> Option<String> {
        let head = self.head.filter(|_| !self.was_found && !self.is_trimmed)?;
        let position = head.position;
        Some(format!("the chain does not contain the kept hash of position {position}"))
    }
}

/// Counts a tenant's events that are not in the chain. Returns the number of events in the queue of
/// the sealer, and the number of events that are neither in the chain nor in the queue.
async fn count_unsealed(db: &Db, tenant: TenantId) -> Result<(i64, i64)> {
    let (mut waiting, mut lost_count, mut after) = (0, 0, Uuid::nil());
    let mut page_size = PageSize::new(UNSEALED_BATCH);
    loop {
        let read = |limit| {
            bounded(async move {
                let mut tx = db.begin_without_cipher(tenant).await?;
                store::count_unsealed(&mut tx, tenant, after, limit).await
            })
        };
        let page = page_size.read(read).await?;
        waiting += page.waiting;
        lost_count += page.lost;
        let Some(last) = page.last else { return Ok((waiting, lost_count)) };
        after = last;
    }
}

/// Describes the fault that events are neither in the chain nor in the queue of the sealer; `None`
/// when there are no such events.
fn lost_events_fault(count: i64) -> Option<String> {
    let text = || format!("{count} events have no place in the chain and do not wait for one");
    (count > 0).then(text)
}
