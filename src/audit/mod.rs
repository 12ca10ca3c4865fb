//! The audit trail: each event records the caller, the action and the target.
//!
//! An event is written in the same transaction as the change that it records ([`record`]). A
//! refusal changes nothing, so its event is written in its own transaction (`refusals`).
//! Background workers process the events later (`worker`): `sealer` seals each event, and `stream`
//! sends the event to Redis. In this folder, to seal an event means to add it to the tenant's hash
//! chain (`chain`). Sealing an event is not encryption. When the retention of events is over,
//! `retention` deletes them, and keeps a signed `checkpoint`.
//!
//! Rule: `queue_audit_event` (`migrations/0003_audit_trail.sql`) puts each new event into the
//! queue of the sealer.

mod backlog;
mod blocked;
pub mod chain;
mod checkpoint;
mod event;
pub mod export;
mod kind;
mod list;
mod origin;
mod page_size;
mod refusals;
mod retention;
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
pub use retention::{Trails, sign_stale};
pub use service::Events;
pub use stream::stream_key;
pub use worker::{ChainReceiver, ChainSignal, start_workers};

use crate::{
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
};

/// The placeholder tenant whose share of the connections the workers of the trail use. So neither
/// the calls of a tenant nor calls without a tenant can take the connections that the workers need.
const WORKER_SHARE: TenantId = TenantId(Uuid::from_u128(1));

/// Records an event in the tenant that the transaction works in.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn record(tx: &mut TenantTx, actor: &Actor, event: Event) -> Result<()> {
    let (tenant, id) = (tx.current_tenant(), Uuid::now_v7());
    // A deleted tenant has no data key to encrypt the address, so its events have no address.
    let ip = match tx.find_cipher(tenant)? {
        Some(cipher) => actor.origin.sealed_ip(&cipher, id)?,
        None => None,
    };
    store::insert(tx, tenant, actor, event, id, ip).await
}

/// Records the last event of a transaction, in the tenant that the transaction works in. Returns
/// the consistency token of the transaction's changes. Operations that store their response before
/// the commit use this function instead of [`finish`].
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn record_with_token(tx: &mut TenantTx, actor: &Actor, event: Event) -> Result<String> {
    record(tx, actor, event).await?;
    tx.consistency_token().await
}

/// Ends a transaction: records the event, unless it is `None`, and commits. Returns the consistency
/// token of the transaction's changes.
///
/// A transaction that ended sessions uses `SessionCache::finish` instead, which also removes the
/// sessions from the cache.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable. The transaction may or may not be committed then.
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

/// Records an event, such as a refusal, in its own transaction. The transaction is completed even
/// if the client cancels the call.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn record_in_own_transaction(
    db: &Db,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
) -> Result<()> {
    record_in_own_transaction_charged_to(db, tenant, tenant, actor, event).await
}

/// Like [`record_in_own_transaction`], but takes the connection from the share of tenant
/// `charged_tenant`, as [`Db::begin_in_share`] does.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn record_in_own_transaction_charged_to(
    db: &Db,
    charged_tenant: TenantId,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
) -> Result<()> {
    let (db, actor) = (db.clone(), actor.clone());
    let transaction = async move {
        let mut tx = db.begin_in_share(charged_tenant, tenant).await?;
        record(&mut tx, &actor, event).await?;
        tx.commit_without_waiting().await
    };
    let result = tokio::spawn(transaction.with_current_context().in_current_span()).await;
    result.map_err(|_| Error::defect("a task that records an event panicked"))?
}
