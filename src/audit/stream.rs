//! The outbox: sends sealed events to Redis Streams, one stream for each tenant. Consumers can
//! read all events there.
//!
//! The id of an entry is the event's position, and Redis accepts only ascending ids. So an event
//! that is sent again, after a crash or a lost connection, is in the stream only once and in order.
//! If a stream rejects an event that it does not contain, another program has written to the
//! stream. Such a stream is blocked: it gets no events until an operator repairs it.
//!
//! - Rule: `read_outbox` (`migrations/0023_publish_audit_events.sql`) decides the order of
//!   sending, and lets one replica at a time send.
//! - Rule: `mark_published` (`migrations/0023_publish_audit_events.sql`) removes the events that
//!   Redis accepted from the outbox.
//! - Rule: `limit_stream.lua` (`src/audit/limit_stream.lua`) limits the lifetime and the memory of a
//!   stream.
//! - Rule: `has.lua` (`src/audit/has.lua`) decides whether the stream has an event already.

use std::collections::HashSet;

use fred::{
    error::{Error, ErrorKind},
    interfaces::StreamsInterface,
    types::scripts::Script,
};
use uuid::Uuid;

use super::{
    WORKER_SHARE,
    blocked::BlockedStreams,
    chain,
    store::{self, OutboxEvent},
};
use crate::{
    clock,
    db::Db,
    error::Result,
    ids::TenantId,
    redis::{self, Redis},
};

/// Maximum number of events that one transaction takes from the outbox. Each stream keeps at
/// least this number of entries, so it still contains the events of a batch that is sent again.
const BATCH: u16 = 200;

/// Lifetime of a stream after its last event, in seconds: 30 days. A stream whose tenant has no
/// events expires.
const STREAM_LIFETIME: i64 = 30 * 24 * 60 * 60;

/// Maximum memory of a stream, in bytes for each entry of its length setting. An event with the
/// largest detail takes more, so the stream of a tenant with many large events has fewer entries.
/// Without this limit, one tenant could fill Redis with its own events.
const BYTES_PER_ENTRY: u64 = 4 * 1024;

/// The result of one pass through the outbox.
#[derive(Default, Clone, Copy, Debug)]
pub struct Progress {
    /// Number of events that were removed from the outbox.
    pub removed: usize,
    /// Number of streams that accepted no event because of the content of their key in Redis.
    pub blocked_streams: usize,
    /// Whether a command to Redis failed.
    pub has_failed: bool,
    /// Whether the next pass should start immediately, because blocked streams that are not
    /// remembered may have filled the batch.
    pub should_continue: bool,
}

/// The reason why an event was not sent.
enum SendError {
    /// The server sends no events to the key, because the key is not a stream, or because another
    /// program has written to the stream.
    Blocked(String),
    /// Redis did not process the command.
    Failed(Error),
}

/// Sends the events of the outbox to Redis.
pub struct Outbox {
    db: Db,
    redis: Redis,
    has_event: Script,
    limit_stream: Script,
    stream_length: u32,
    blocked_streams: BlockedStreams,
    /// The tenant with which the next pass starts.
    first_tenant: Uuid,
}

impl Outbox {
    /// Each stream keeps about `stream_length` entries. If `stream_length` is 0, nothing is sent,
    /// and the events are only removed from the outbox.
    pub fn new(db: Db, redis: Redis, stream_length: u32) -> Self {
        let has_event = redis::script(include_str!("has.lua"));
        let limit_stream = redis::script(include_str!("limit_stream.lua"));
        let (blocked_streams, first_tenant) = (BlockedStreams::default(), Uuid::nil());
        Self { db, redis, has_event, limit_stream, stream_length, blocked_streams, first_tenant }
    }

    /// Sends a batch of events from the outbox, and removes them from the outbox.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable. Events that Redis already accepted are sent again
    /// later. Sending an event again has no effect.
    pub async fn publish(&mut self) -> Result<Progress> {
        if !store::has_unsent(&self.db).await? {
            return Ok(Progress::default());
        }
        let paused_tenants = self.blocked_streams.paused_tenants();
        let mut tx = self.db.postgres().begin_in_share(WORKER_SHARE, TenantId::UNKNOWN).await?;
        let events = store::read_outbox(&mut tx, BATCH, &paused_tenants, self.first_tenant).await?;
        let (sent, progress) = self.send_all(&events).await;
        if sent.is_empty() {
            return Ok(progress);
        }
        let tenants: Vec<_> = sent.iter().map(|event| event.tenant_id).collect();
        self.limit_streams(&tenants).await;
        let positions: Vec<_> = sent.iter().map(|event| event.position).collect();
        store::mark_published(&mut tx, &tenants, &positions).await?;
        tx.commit().await?;
        Ok(progress)
    }

    /// Sends events, and returns the events that Redis accepted. A failure of Redis ends the pass.
    /// A blocked stream delays only the events of the stream's tenant.
    async fn send_all<'a>(
        &mut self,
        events: &'a [OutboxEvent],
    ) -> (Vec<&'a OutboxEvent>, Progress) {
        let (mut sent, mut progress) = (Vec::new(), Progress::default());
        let (mut blocked_tenants, mut all_remembered) = (HashSet::new(), true);
        for event in events {
            let tenant = event.tenant_id;
            if blocked_tenants.contains(&tenant) {
                continue;
            }
            match self.send(event).await {
                Ok(()) => sent.push(event),
                Err(SendError::Blocked(why)) => {
                    blocked_tenants.insert(tenant);
                    let is_remembered = self.blocked_streams.insert(tenant);
                    // Only remembered streams are logged, so the number of log lines is bounded.
                    if is_remembered {
                        tracing::warn!(
                            why,
                            %tenant,
                            "no events are sent to a tenant's audit stream"
                        );
                    }
                    all_remembered &= is_remembered;
                }
                Err(SendError::Failed(error)) => {
                    tracing::debug!(%error, "an audit event waits in the outbox");
                    progress.has_failed = true;
                    break;
                }
            }
        }
        progress.removed = sent.len();
        progress.blocked_streams = blocked_tenants.len();
        if !progress.has_failed {
            let last_of_full_batch = events.last().filter(|_| events.len() >= BATCH.into());
            progress.should_continue = last_of_full_batch.is_some() && !all_remembered;
            match last_of_full_batch {
                // Blocked streams that are not remembered could fill the next batch again. So the
                // next pass starts after the last tenant of this batch.
                Some(last) if !all_remembered => self.first_tenant = next_id(last.tenant_id),
                Some(_) => {}
                None => self.first_tenant = Uuid::nil(),
            }
        }
        (sent, progress)
    }

    /// Sets the expiry of the streams to which events were sent, and limits their memory. If Redis
    /// fails, the next event of the tenant does both.
    async fn limit_streams(&self, tenants: &[Uuid]) {
        if self.stream_length == 0 {
            return;
        }
        let arguments = vec![
            STREAM_LIFETIME.to_string(),
            (u64::from(self.max_entries()) * BYTES_PER_ENTRY).to_string(),
            BATCH.to_string(),
        ];
        for tenant in tenants.iter().collect::<HashSet<_>>() {
            let keys = vec![stream_key(*tenant)];
            let result = self.redis.eval(&self.limit_stream, keys, arguments.clone()).await;
            let result: Result<(), _> = result;
            if let Err(error) = result {
                tracing::debug!(%error, %tenant, "an audit stream was not limited");
                return;
            }
        }
    }

    /// Approximate maximum number of entries of a stream: the setting, but at least a batch.
    fn max_entries(&self) -> u32 {
        self.stream_length.max(BATCH.into())
    }

    async fn send(&self, event: &OutboxEvent) -> Result<(), SendError> {
        if self.stream_length == 0 {
            return Ok(());
        }
        let key = stream_key(event.tenant_id);
        let max_length = ("MAXLEN", "~", i64::from(self.max_entries()), None);
        let id = format!("{}-0", event.position);
        let command = self.redis.client().xadd(&key, false, max_length, &id, event.fields());
        let result: Result<(), _> = self.redis.run("XADD", command).await;
        let Err(error) = result else { return Ok(()) };
        let message = error.details();
        if message.contains("equal or smaller") {
            return self.check_already_sent(key, id, event).await;
        }
        // The key is not a stream, or the last entry of the stream has the highest possible id.
        if message.starts_with("WRONGTYPE") || message.contains("exhausted the last possible ID") {
            return Err(SendError::Blocked(message.to_owned()));
        }
        Err(SendError::Failed(error))
    }

    /// Checks that a stream contains the event. Called when the last id of the stream is not lower
    /// than the id of the event. The stream contains the event if the event was sent before and the
    /// response of Redis was lost.
    async fn check_already_sent(
        &self,
        key: String,
        id: String,
        event: &OutboxEvent,
    ) -> Result<(), SendError> {
        let blocked_error = |why: &str| Err(SendError::Blocked(why.to_owned()));
        let arguments = vec![id, event.event_id.to_string()];
        match self.redis.eval(&self.has_event, vec![key], arguments).await {
            Ok(1_i64) => Ok(()),
            Ok(_) => blocked_error("the stream has a later entry but not this event"),
            // A large entry in one stream must not stop the sending to the other streams.
            Err(error) if *error.kind() == ErrorKind::Timeout => blocked_error(
                "the stream has a later entry, and the search for this event timed out",
            ),
            Err(error) => Err(SendError::Failed(error)),
        }
    }
}

/// The key of a tenant's stream in Redis. The braces are a hash tag: Redis Cluster stores all keys
/// of a tenant in one slot.
#[must_use]
pub fn stream_key(tenant: Uuid) -> String {
    format!("audit:{{{tenant}}}")
}

/// The id after this id. After the highest id comes the lowest id.
fn next_id(tenant: Uuid) -> Uuid {
    Uuid::from_u128(tenant.as_u128().wrapping_add(1))
}

impl OutboxEvent {
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
            ("create_time", Some(clock::rfc3339(self.created_at))),
            ("detail", Some(self.detail.to_string())),
            ("hash", Some(chain::encode_hash(&self.hash))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
