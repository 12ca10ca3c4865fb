//! The outbox: sealed events go to Redis Streams, one a tenant, for consumers that
//! are told of everything.
//!
//! An entry's id is the event's position. Redis takes ids in ascending order alone, so
//! an event that is sent again, after a process or a connection ended in between, is
//! in the stream once and in its place.

use fred::{error::Error, interfaces::StreamsInterface};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::chain;
use crate::{clock, db::Db, error::Result, redis::Redis};

/// Events that one transaction takes from the outbox, at most.
const BATCH: i64 = 200;

/// An event to send. The client's address stays in Postgres.
struct Sent {
    tenant_id: Uuid,
    event_id: Uuid,
    kind: String,
    actor_tenant_id: Option<Uuid>,
    actor_id: Option<Uuid>,
    target_id: Option<Uuid>,
    session_id: Option<Uuid>,
    request_id: String,
    detail: Value,
    created_at: OffsetDateTime,
    position: i64,
    hash: Vec<u8>,
}

/// How sending went.
#[derive(Default, Clone, Copy, Debug)]
pub struct Progress {
    /// Events that left the outbox.
    pub done: usize,
    /// Whether Redis did not take one.
    pub failed: bool,
}

/// Sends what is in the outbox, a batch at most. Each stream keeps about `length`
/// entries; of 0 nothing is sent, and the outbox just emptied.
///
/// # Errors
/// When Postgres is away. What was sent is sent again then, to no effect.
pub async fn publish(db: &Db, redis: &Redis, length: u32) -> Result<Progress> {
    let waits = sqlx::query_scalar!(r#"select unsent as "unsent!" from audit_backlog()"#);
    if !waits.fetch_one(db.pool()).await? {
        return Ok(Progress::default());
    }
    let mut tx = db.connections().begin().await?;
    let events = sqlx::query_as!(
        Sent,
        r#"
        select (event).tenant_id as "tenant_id!", (event).event_id as "event_id!",
               (event).kind as "kind!", (event).actor_tenant_id, (event).actor_id,
               (event).target_id, (event).session_id, (event).request_id as "request_id!",
               (event).detail as "detail!", (event).created_at as "created_at!",
               position as "position!", hash as "hash!"
        from read_outbox($1)
        "#,
        BATCH,
    )
    .fetch_all(&mut *tx)
    .await?;
    let done = if length > 0 { send_all(redis, &events, length).await } else { events.len() };
    let progress = Progress { done, failed: done < events.len() };
    if done == 0 {
        return Ok(progress);
    }
    let tenants: Vec<_> = events[..done].iter().map(|event| event.tenant_id).collect();
    let positions: Vec<_> = events[..done].iter().map(|event| event.position).collect();
    sqlx::query!("select mark_published($1, $2)", &tenants, &positions).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(progress)
}

/// How many of the events Redis took, up to the first that it did not.
async fn send_all(redis: &Redis, events: &[Sent], length: u32) -> usize {
    for (at, event) in events.iter().enumerate() {
        if let Err(error) = send(redis, event, length).await {
            tracing::debug!(%error, "an audit event waits in the outbox");
            return at;
        }
    }
    events.len()
}

async fn send(redis: &Redis, event: &Sent, length: u32) -> Result<(), Error> {
    let key = format!("audit:{{{}}}", event.tenant_id);
    let cap = ("MAXLEN", "~", i64::from(length), None);
    let id = format!("{}-0", event.position);
    let sent = redis.client().xadd(key, false, cap, id, event.fields());
    let sent: Result<(), _> = redis.observe("XADD", sent).await;
    match sent {
        // It is there already: nobody heard so the last time.
        Err(error) if error.details().contains("equal or smaller") => Ok(()),
        other => other,
    }
}

impl Sent {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let id = |id: Option<Uuid>| id.map(|id| id.to_string());
        let fields = [
            ("id", Some(self.event_id.to_string())),
            ("kind", Some(self.kind.clone())),
            ("actor_id", id(self.actor_id)),
            ("actor_tenant_id", id(self.actor_tenant_id)),
            ("target_id", id(self.target_id)),
            ("session_id", id(self.session_id)),
            ("request_id", Some(self.request_id.clone())),
            ("create_time", Some(clock::text(self.created_at))),
            ("detail", Some(self.detail.to_string())),
            ("hash", Some(chain::text(&self.hash))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
