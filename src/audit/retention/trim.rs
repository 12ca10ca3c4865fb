//! One step of the retention of one trail: verifies the oldest events, signs a checkpoint after
//! them and deletes them.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{
    super::{
        chain::Walk,
        checkpoint::{self, Checkpoint},
        store::{CheckpointRow, EventRow, read_checkpoint},
    },
    store::{self, OldestEvents},
};
use crate::{concurrency::step::bounded, db::Db, error::Result, ids::TenantId, tokens::Keyring};

/// Maximum number of events that one transaction deletes. Together their details have at most 8 MiB
/// (16 KiB each).
const BATCH: i64 = 500;

/// The result of one step.
pub(super) enum Step {
    /// Events were deleted. `is_last`: no further event of the trail is due.
    Deleted { events: i64, is_last: bool },
    /// No event of the trail may be deleted yet.
    NothingDue,
    /// Another replica is deleting, or has moved the checkpoint. The step must be repeated.
    Retry,
    /// The trail or its checkpoint is not valid, for this reason. Nothing was deleted.
    Refused(String),
}

/// Deletes at most [`BATCH`] events of a trail.
///
/// # Errors
/// UNAVAILABLE when Postgres or the key service is unavailable.
pub(super) async fn step(
    db: &Db,
    keyring: &Arc<Keyring>,
    tenant: TenantId,
    retention: Duration,
) -> Result<Step> {
    let oldest = bounded(store::oldest_events(db, tenant, retention, BATCH)).await?;
    let old_checkpoint = oldest.checkpoint.clone();
    let batch_size = oldest.events.len();
    // Verifying a batch and signing take several milliseconds, too long for a thread of the async
    // runtime.
    let due =
        checkpoint::on_blocking_thread(keyring, move |keyring| sign_due(keyring, &oldest)).await?;
    let (checkpoint, due_count) = match due {
        Due::Events { checkpoint, count } => (checkpoint, count),
        Due::Nothing => return Ok(Step::NothingDue),
        Due::Refused(why) => {
            // The trail may be valid: if another replica moved the checkpoint while this step read
            // the checkpoint and the events, they do not match.
            let has_moved = read_checkpoint(db, tenant).await? != old_checkpoint;
            return Ok(if has_moved { Step::Retry } else { Step::Refused(why) });
        }
    };
    let from = old_checkpoint.map_or(0, |checkpoint| checkpoint.position);
    let deleted = bounded(store::trim(db, from, &checkpoint)).await?;
    // An event of the batch is not due, or the trail has no event after the batch.
    let is_last =
        due_count < batch_size || i64::try_from(batch_size).is_ok_and(|size| size < BATCH);
    Ok(deleted.map_or(Step::Retry, |events| Step::Deleted { events, is_last }))
}

/// The events of a batch that may be deleted.
enum Due {
    /// The number of these events, and the signed checkpoint after the last of them.
    Events { checkpoint: CheckpointRow, count: usize },
    /// No event of the batch may be deleted yet.
    Nothing,
    /// The trail or its checkpoint is not valid, for this reason.
    Refused(String),
}

/// Verifies the oldest events of a trail, and signs a checkpoint after the last event that is due.
/// An event is due when its retention is over, Redis has accepted it, and all events before it are
/// due.
fn sign_due(keyring: &Keyring, oldest: &OldestEvents) -> Result<Due> {
    if let Some(row) = &oldest.checkpoint
        && let Err(why) = checkpoint::verify(row, &keyring.statement_keys())
    {
        return Ok(Due::Refused(why));
    }
    let mut walk = Walk::after(oldest.checkpoint.as_ref());
    let mut last_due: Option<(&EventRow, usize)> = None;
    for (event, count) in oldest.events.iter().zip(1..) {
        if let Err(why) = walk.verify_next(event) {
            return Ok(Due::Refused(why));
        }
        if !is_due(event, oldest.due_until, oldest.first_unsent) {
            break;
        }
        last_due = Some((event, count));
    }
    let Some((event, count)) = last_due else { return Ok(Due::Nothing) };
    let (tenant, position) = (event.tenant_id, event.position);
    let checkpoint = Checkpoint::after(keyring, tenant, position, &event.hash, event.created_at);
    Ok(Due::Events { checkpoint: checkpoint.sign(keyring, &event.hash)?, count })
}

fn is_due(event: &EventRow, due_until: OffsetDateTime, first_unsent: Option<i64>) -> bool {
    event.created_at <= due_until && first_unsent.is_none_or(|first| event.position < first)
}
