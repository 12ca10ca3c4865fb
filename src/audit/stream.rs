//! The outbox: sends sealed events to Redis Streams, one stream for each tenant. Consumers can
//! read all events there.
//!
//! The id of an entry is the event's position, and Redis accepts only ascending ids. So an
//! event that is sent again, after a crash or a lost connection, is in the stream only once and
//! in order. A stream that rejects an event and does not contain it was written to by someone
//! else. It gets no events until an operator repairs it.
//!
//! - Rule: `read_outbox` (`migrations/0023_publish_audit_events.sql`) decides the order of
//!   sending, and lets one replica at a time send.
//! - Rule: `mark_published` (`migrations/0023_publish_audit_events.sql`) removes the events that
//!   Redis accepted from the outbox.
//! - Rule: `has.lua` (`src/audit/has.lua`) decides whether the stream has an event already.

use std::collections::HashSet;

use fred::{
    error::{Error, ErrorKind},
    interfaces::StreamsInterface,
    types::scripts::Script,
};
use uuid::Uuid;

use super::{
    blocked::Blocked,
    chain,
    store::{self, Sent},
};
use crate::{
    clock,
    db::Db,
    error::Result,
    redis::{self, Redis},
};

/// Maximum number of events that one transaction takes from the outbox. Each stream keeps at
/// least as many, so it still contains events that are sent again.
const BATCH: u16 = 200;

/// The result of one pass.
#[derive(Default, Clone, Copy, Debug)]
pub struct Progress {
    /// Number of events that left the outbox.
    pub done: usize,
    /// Number of streams that accepted no event because of the content of their key in Redis.
    pub blocked: usize,
    /// Whether Redis failed to accept an event.
    pub failed: bool,
    /// Whether the next pass should start at once, with the tenants after blocked ones.
    pub should_continue: bool,
}

/// Why an event was not sent.
enum Unsent {
    /// The stream accepts no events because of the content of its key.
    Blocked(String),
    /// Redis failed.
    Failed(Error),
}

/// The outbox and its target.
pub struct Outbox {
    db: Db,
    redis: Redis,
    has: Script,
    length: u32,
    blocked: Blocked,
    /// The tenant at which the next pass starts.
    from: Uuid,
}

impl Outbox {
    /// Each stream keeps about `length` entries. With 0, nothing is sent, and the outbox is
    /// only emptied.
    pub fn new(db: Db, redis: Redis, length: u32) -> Self {
        let has = redis::script(include_str!("has.lua"));
        Self { db, redis, has, length, blocked: Blocked::default(), from: Uuid::nil() }
    }

    /// Sends a batch of events from the outbox.
    ///
    /// # Errors
    /// When Postgres is unavailable. Events that were already sent are sent again later, which
    /// has no effect.
    pub async fn publish(&mut self) -> Result<Progress> {
        if !store::has_unsent(&self.db).await? {
            return Ok(Progress::default());
        }
        let blocked = self.blocked.current();
        let mut tx = self.db.connections().begin().await?;
        let events = store::read_outbox(&mut tx, BATCH, &blocked, self.from).await?;
        let (sent, progress) = self.send_all(&events).await;
        if sent.is_empty() {
            return Ok(progress);
        }
        let tenants: Vec<_> = sent.iter().map(|event| event.tenant_id).collect();
        let positions: Vec<_> = sent.iter().map(|event| event.position).collect();
        store::mark_published(&mut tx, &tenants, &positions).await?;
        tx.commit().await?;
        Ok(progress)
    }

    /// Sends events and returns those that Redis accepted. A failure of Redis ends the pass. A
    /// blocked stream delays only its own tenant's events.
    async fn send_all<'a>(&mut self, events: &'a [Sent]) -> (Vec<&'a Sent>, Progress) {
        let (mut sent, mut progress) = (Vec::new(), Progress::default());
        let (mut blocked, mut are_remembered) = (HashSet::new(), true);
        for event in events {
            let tenant = event.tenant_id;
            if blocked.contains(&tenant) {
                continue;
            }
            match self.send(event).await {
                Ok(()) => sent.push(event),
                Err(Unsent::Blocked(why)) => {
                    blocked.insert(tenant);
                    let is_remembered = self.blocked.insert(tenant);
                    // At most as many log lines as remembered streams.
                    if is_remembered {
                        tracing::warn!(why, %tenant, "a tenant's audit stream takes no events");
                    }
                    are_remembered &= is_remembered;
                }
                Err(Unsent::Failed(error)) => {
                    tracing::debug!(%error, "an audit event waits in the outbox");
                    progress.failed = true;
                    break;
                }
            }
        }
        progress.done = sent.len();
        progress.blocked = blocked.len();
        if !progress.failed {
            let more = events.last().filter(|_| events.len() >= BATCH.into());
            progress.should_continue = more.is_some() && !are_remembered;
            match more {
                // The streams before may be blocked without being remembered, so the next pass
                // starts after this tenant.
                Some(last) if !are_remembered => self.from = after(last.tenant_id),
                Some(_) => {}
                None => self.from = Uuid::nil(),
            }
        }
        (sent, progress)
    }

    async fn send(&self, event: &Sent) -> Result<(), Unsent> {
        if self.length == 0 {
            return Ok(());
        }
        let key = format!("audit:{{{}}}", event.tenant_id);
        let cap = ("MAXLEN", "~", i64::from(self.length.max(BATCH.into())), None);
        let id = format!("{}-0", event.position);
        let sent = self.redis.client().xadd(&key, false, cap, &id, event.fields());
        let sent: Result<(), _> = self.redis.observe("XADD", sent).await;
        let Err(error) = sent else { return Ok(()) };
        let says = error.details();
        if says.contains("equal or smaller") {
            return self.was_sent(key, id, event).await;
        }
        // The key is not a stream, or the stream has an entry with the highest possible id.
        if says.starts_with("WRONGTYPE") || says.contains("exhausted the last possible ID") {
            return Err(Unsent::Blocked(says.to_owned()));
        }
        Err(Unsent::Failed(error))
    }

    /// Checks that a stream whose last id is not lower than the event's contains the event. It
    /// does when the event was sent before and the confirmation was lost.
    async fn was_sent(&self, key: String, id: String, event: &Sent) -> Result<(), Unsent> {
        let blocked = |why: &str| Err(Unsent::Blocked(why.to_owned()));
        let arguments = vec![id, event.event_id.to_string()];
        let has = self.has.evalsha_with_reload(self.redis.client(), vec![key], arguments);
        match self.redis.observe("EVALSHA", has).await {
            Ok(1_i64) => Ok(()),
            Ok(_) => blocked("it is ahead, and has not got the event"),
            // A large entry must not stop all streams.
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                blocked("it is ahead, and could not be looked at in time")
            }
            Err(error) => Err(Unsent::Failed(error)),
        }
    }
}

/// The next tenant id; the highest id is followed by the lowest.
fn after(tenant: Uuid) -> Uuid {
    Uuid::from_u128(tenant.as_u128().wrapping_add(1))
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
