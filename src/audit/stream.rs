//! The outbox: sealed events go to Redis Streams, one a tenant, for consumers that
//! are told of everything.
//!
//! An entry's id is the event's position. Redis takes ids in ascending order alone, so
//! an event that is sent again, after a process or a connection ended in between, is
//! in the stream once and in its place.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use fred::{error::Error, interfaces::StreamsInterface};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::chain;
use crate::{clock, db::Db, error::Result, redis::Redis};

/// Events that one transaction takes from the outbox, at most.
const BATCH: i64 = 200;

/// How long a stream that took no event is left alone.
const BLOCKED_FOR: Duration = Duration::from_secs(10);

/// The streams that are left alone at once, at most.
const MAX_BLOCKED: usize = 1_000;

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
    /// Streams that took none: their key in Redis holds something else.
    pub blocked: usize,
    /// Whether Redis did not take one.
    pub failed: bool,
}

/// The outbox, and where it is emptied to.
pub struct Outbox {
    db: Db,
    redis: Redis,
    length: u32,
    /// Tenants whose stream takes no events, and when that was found.
    blocked: HashMap<Uuid, Instant>,
}

impl Outbox {
    /// Each stream keeps about `length` entries; of 0 nothing is sent, and the outbox just
    /// emptied.
    pub fn new(db: Db, redis: Redis, length: u32) -> Self {
        Self { db, redis, length, blocked: HashMap::new() }
    }

    /// Sends what is in the outbox, a batch at most.
    ///
    /// # Errors
    /// When Postgres is away. What was sent is sent again then, to no effect.
    pub async fn publish(&mut self) -> Result<Progress> {
        let waits = sqlx::query_scalar!(r#"select unsent as "unsent!" from audit_backlog()"#);
        if !waits.fetch_one(self.db.pool()).await? {
            return Ok(Progress::default());
        }
        self.blocked.retain(|_, since| since.elapsed() < BLOCKED_FOR);
        let blocked: Vec<_> = self.blocked.keys().copied().collect();
        let mut tx = self.db.connections().begin().await?;
        let events = sqlx::query_as!(
            Sent,
            r#"
            select (event).tenant_id as "tenant_id!", (event).event_id as "event_id!",
                   (event).kind as "kind!", (event).actor_tenant_id, (event).actor_id,
                   (event).target_id, (event).session_id, (event).request_id as "request_id!",
                   (event).detail as "detail!", (event).created_at as "created_at!",
                   position as "position!", hash as "hash!"
            from read_outbox($1, $2)
            "#,
            BATCH,
            &blocked,
        )
        .fetch_all(&mut *tx)
        .await?;
        let (sent, progress) = self.send_all(&events).await;
        if sent.is_empty() {
            return Ok(progress);
        }
        let tenants: Vec<_> = sent.iter().map(|event| event.tenant_id).collect();
        let positions: Vec<_> = sent.iter().map(|event| event.position).collect();
        sqlx::query!("select mark_published($1, $2)", &tenants, &positions)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(progress)
    }

    /// The events that Redis took. It stops where Redis takes none; a stream that takes none
    /// stops that tenant's alone.
    async fn send_all<'a>(&mut self, events: &'a [Sent]) -> (Vec<&'a Sent>, Progress) {
        let (mut sent, mut progress) = (Vec::new(), Progress::default());
        for event in events {
            if self.blocked.contains_key(&event.tenant_id) {
                continue;
            }
            match self.send(event).await {
                Ok(()) => sent.push(event),
                Err(error) if is_of_key(&error) && self.blocked.len() < MAX_BLOCKED => {
                    let tenant = event.tenant_id;
                    tracing::warn!(%error, %tenant, "a tenant's audit stream takes no events");
                    self.blocked.insert(tenant, Instant::now());
                    progress.blocked += 1;
                }
                Err(error) => {
                    tracing::debug!(%error, "an audit event waits in the outbox");
                    progress.failed = true;
                    break;
                }
            }
        }
        progress.done = sent.len();
        (sent, progress)
    }

    async fn send(&self, event: &Sent) -> Result<(), Error> {
        if self.length == 0 {
            return Ok(());
        }
        let key = format!("audit:{{{}}}", event.tenant_id);
        let cap = ("MAXLEN", "~", i64::from(self.length), None);
        let id = format!("{}-0", event.position);
        let sent = self.redis.client().xadd(key, false, cap, id, event.fields());
        let sent: Result<(), _> = self.redis.observe("XADD", sent).await;
        match sent {
            // It is there already: nobody heard so the last time.
            Err(error) if error.details().contains("equal or smaller") => Ok(()),
            other => other,
        }
    }
}

/// Whether it is this one key that takes no events: it holds something else than a stream,
/// or an entry with the last id that there is.
fn is_of_key(error: &Error) -> bool {
    let says = error.details();
    says.starts_with("WRONGTYPE") || says.contains("exhausted the last possible ID")
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
