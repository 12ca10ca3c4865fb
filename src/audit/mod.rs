//! The audit trail: what happened, by whom, to whom.
//!
//! An event is written in the transaction of what it records ([`record`]); a refusal,
//! which changes nothing, by itself (`refusals`). From then on the trail keeps itself
//! (`worker`): a moment later `sealer` gives the event its place in its tenant's chain
//! of hashes (`chain`), and `stream` sends it on to Redis.
//!
//! Rule: `queue_audit_event` (`migrations/0003_audit_trail.sql`) puts each new event into the
//! queue of the sealer.

mod blocked;
pub mod chain;
mod event;
mod kind;
mod origin;
mod refusals;
mod sealer;
pub mod store;
mod stream;
pub mod verify;
mod worker;

use opentelemetry::context::FutureExt;
use serde_json::Value;
use tracing::Instrument;
use uuid::Uuid;

pub use event::{Actor, Event};
pub use kind::EventKind;
pub use origin::{Origin, RequestId};
pub use refusals::{Refusal, Refusals};
pub use worker::{Listener, SealSignal, start_workers};

use crate::{
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
};

/// Records an event of `tenant`, the transaction's own.
///
/// # Errors
/// When Postgres is away.
pub async fn record(
    tx: &mut TenantTx,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
) -> Result<()> {
    let id = Uuid::now_v7();
    // One that was deleted has no data key, and its events no addresses.
    let ip = match tx.find_cipher(tenant)? {
        Some(cipher) => actor.origin.sealed_ip(&cipher, id)?,
        None => None,
    };
    sqlx::query!(
        r#"
        insert into audit_events
            (tenant_id, event_id, kind, actor_tenant_id, actor_id, target_id, session_id,
             request_id, ip, detail)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        tenant.0,
        id,
        event.kind.as_str(),
        actor.tenant.map(|id| id.0),
        actor.user.map(|id| id.0),
        event.target,
        actor.session.map(|id| id.0),
        actor.origin.request_id.to_string(),
        ip,
        Value::Object(event.detail),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Records an event that nothing else is written with, like a refusal: once it has begun,
/// whether or not the caller still waits.
///
/// # Errors
/// When Postgres is away.
pub async fn record_alone(db: &Db, tenant: TenantId, actor: &Actor, event: Event) -> Result<()> {
    record_within(db, tenant, tenant, actor, event).await
}

/// The same, on a connection of another share than the tenant's own, as
/// [`Db::begin_within`].
///
/// # Errors
/// When Postgres is away.
pub async fn record_within(
    db: &Db,
    share: TenantId,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
) -> Result<()> {
    let (db, actor) = (db.clone(), actor.clone());
    let work = async move {
        let mut tx = db.begin_within(share, tenant).await?;
        record(&mut tx, tenant, &actor, event).await?;
        tx.commit_record().await
    };
    let recorded = tokio::spawn(work.with_current_context().in_current_span()).await;
    recorded.map_err(|_| Error::defect("a task that records an event died"))?
}
