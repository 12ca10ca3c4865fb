//! The audit trail: each event records the caller, the action and the target.
//!
//! An event is written in the same transaction as the change that it records ([`record`]). A
//! refusal changes nothing, so its event has a transaction of its own (`refusals`). Background
//! workers process the events later (`worker`): `sealer` gives each event its position in the
//! tenant's hash chain (`chain`), and `stream` sends the event to Redis.
//!
//! Rule: `queue_audit_event` (`migrations/0003_audit_trail.sql`) puts each new event into the
//! queue of the sealer.

mod blocked;
pub mod chain;
mod event;
mod kind;
mod list;
mod origin;
mod refusals;
mod rpc;
mod sealer;
mod service;
pub mod store;
mod stream;
mod to_proto;
pub mod verify;
mod watch;
mod worker;

use opentelemetry::context::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

pub use event::{Actor, Event};
pub use kind::EventKind;
pub use origin::{CorrelationId, Origin};
pub use refusals::{Refusal, Refusals};
pub use service::Events;
pub use worker::{SealReceiver, SealSignal, start_workers};

use crate::{
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
};

/// Records an event in the tenant that the transaction works in.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn record(tx: &mut TenantTx, actor: &Actor, event: Event) -> Result<()> {
    let (tenant, id) = (tx.current_tenant(), Uuid::now_v7());
    // A deleted tenant has no data key, so its events have no address.
    let ip = match tx.find_cipher(tenant)? {
        Some(cipher) => actor.origin.sealed_ip(&cipher, id)?,
        None => None,
    };
    store::insert(tx, tenant, actor, event, id, ip).await
}

/// Records the last event of a transaction, in the tenant that the transaction works in. Returns
/// the consistency token of the transaction's changes, for a response that is stored before the
/// commit.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn record_with_token(tx: &mut TenantTx, actor: &Actor, event: Event) -> Result<String> {
    record(tx, actor, event).await?;
    tx.consistency_token().await
}

/// Ends a transaction: records the event, unless it is `None`, and commits. Returns the consistency
/// token of the transaction's changes.
///
/// A change that ended sessions is finished with `SessionCache::finish` instead.
///
/// # Errors
/// When Postgres is unavailable. The transaction may or may not be committed then.
pub async fn finish(
    mut tx: TenantTx,
    actor: &Actor,
    event: impl Into<Option<Event>>,
) -> Result<String> {
    if let Some(event) = event.into() {
        record(&mut tx, actor, event).await?;
    }
    let token = tx.consistency_token().await?;
    tx.commit().await?;
    Ok(token)
}

/// Records an event, such as a refusal, in a transaction of its own. The transaction finishes even
/// if the client cancels the call.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn record_alone(db: &Db, tenant: TenantId, actor: &Actor, event: Event) -> Result<()> {
    record_in_share(db, tenant, tenant, actor, event).await
}

/// Like [`record_alone`], but takes the connection from the share of tenant `share`, as
/// [`Db::begin_in_share`] does.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn record_in_share(
    db: &Db,
    share: TenantId,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
) -> Result<()> {
    let (db, actor) = (db.clone(), actor.clone());
    let work = async move {
        let mut tx = db.begin_in_share(share, tenant).await?;
        record(&mut tx, &actor, event).await?;
        tx.commit_record().await
    };
    let result = tokio::spawn(work.with_current_context().in_current_span()).await;
    result.map_err(|_| Error::defect("a task that records an event died"))?
}
