//! The cache of live sessions in Redis, shared by all replicas.
//!
//! Postgres has the authoritative state. Four rules bound how long a wrong entry is used:
//!
//! - Each entry contains its tenant's epoch. Every change that ends a session (sign-out,
//!   revocation, a disabled user, a suspended tenant) replaces the epoch after the commit of the
//!   change. So a read that was in progress at that time can't fill the cache with the state
//!   before the commit.
//! - An entry is valid for 750 ms ([`super::entry`]) after the lookup that preceded the read of
//!   Postgres, by Redis's own clock, however late the entry was written. This bound also holds
//!   when the change of the epoch is lost: Redis was unavailable, was restarted or failed over.
//! - Each entry has a MAC over its whole content ([`super::entry`]). A party with access to Redis
//!   can delete entries, and replay an entry while it is valid, but can't create an entry.
//! - A replica keeps the result of an entry in memory only while the entry is valid. After that,
//!   Postgres is read.
//!
//! If an entry is missing or Redis does not answer, Postgres is read. A value that is larger than
//! an entry can be is not read and is treated as missing.
//!
//! - Rule: `read.lua` (`src/sessions/read.lua`) returns the entry of a session and the epoch of
//!   its tenant.
//! - Rule: `fill.lua` (`src/sessions/fill.lua`) decides whether the result from Postgres is still
//!   recent enough to be cached.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::scripts::Script;
use uuid::Uuid;

use super::{
    Ended,
    entry::{Entry, EntryKeys, MAX_ENTRY, Now, TRUST},
};
use crate::{
    audit::{self, Actor, Event},
    clock,
    db::TenantTx,
    error::Result,
    ids::{SessionId, TenantId, UserId},
    redis::{self, Redis},
};

/// Maximum staleness: no lookup reports a session as live longer than this after the session
/// ended. The value is [`TRUST`] plus a quarter of a second for clocks that run at different
/// speeds.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(1);

/// Maximum time from the lookup until the entry is written to Redis. A later entry is dropped.
const MAX_AGE: Duration = Duration::from_millis(250);

/// Time to live of an epoch in Redis, in seconds. The loss of an epoch only empties the cache.
const EPOCH_TTL: u32 = 7 * 24 * 60 * 60;

/// The cache of live sessions. Cheap to clone.
#[derive(Clone)]
pub struct SessionCache {
    redis: Redis,
    keys: Arc<EntryKeys>,
    read: Script,
    fill: Script,
}

/// The result of a lookup.
pub enum Lookup {
    /// The session is live and belongs to the user. The result is valid until this time.
    Live(Instant),
    /// The cache has no entry: read Postgres. When the session is live there, pass the ticket to
    /// [`SessionCache::fill`].
    Unknown(Ticket),
}

/// Permission to fill the cache after a lookup without a result. The ticket has no effect when the
/// tenant's epoch has changed since the lookup.
pub struct Ticket {
    /// The entry to write; `None` when Redis did not answer.
    entry: Option<Entry>,
}

impl SessionCache {
    /// Creates the cache. The keys authenticate its entries.
    #[must_use]
    pub fn new(redis: Redis, keys: Arc<EntryKeys>) -> Self {
        Self {
            redis,
            keys,
            read: redis::script(include_str!("read.lua")),
            fill: redis::script(include_str!("fill.lua")),
        }
    }

    /// Looks up a user's session.
    pub async fn lookup(&self, tenant: TenantId, session: SessionId, user: UserId) -> Lookup {
        let (lookup_time, own) = (Instant::now(), now());
        let reply = self.read.evalsha_with_reload(
            self.redis.client(),
            vec![epoch_key(tenant), session_key(tenant, session)],
            vec![new_epoch(), EPOCH_TTL.to_string(), MAX_ENTRY.to_string()],
        );
        let reply: Result<(String, String, u64), fred::error::Error> =
            self.redis.observe("EVALSHA", reply).await;
        let reply = reply.ok().and_then(|(epoch, entry_text, redis)| {
            let epoch = Uuid::try_parse(&epoch).ok()?;
            Some((epoch, entry_text, redis))
        });
        let Some((epoch, entry_text, redis)) = reply else {
            return Lookup::Unknown(Ticket { entry: None });
        };
        let valid_for = self
            .keys
            .read(tenant, session, &entry_text)
            .filter(|entry| entry.epoch == epoch && entry.user == user)
            .and_then(|entry| entry.valid_for(Now { redis, own }));
        if let Some(time_left) = valid_for {
            return Lookup::Live(lookup_time + time_left);
        }
        let entry = Entry { tenant, session, user, epoch, looked_up: redis, written: own };
        Lookup::Unknown(Ticket { entry: Some(entry) })
    }

    /// Caches a session that Postgres reported as live after the lookup. The token expires in
    /// `seconds_left`.
    pub async fn fill(&self, ticket: Ticket, seconds_left: i64) {
        let Some(entry) = ticket.entry.filter(|_| seconds_left > 0) else { return };
        let Some(text) = self.keys.write(&entry) else { return };
        let reply = self.fill.evalsha_with_reload(
            self.redis.client(),
            vec![epoch_key(entry.tenant), session_key(entry.tenant, entry.session)],
            vec![
                entry.epoch.simple().to_string(),
                text,
                entry.looked_up.to_string(),
                millis(MAX_AGE).to_string(),
                millis(TRUST.min(Duration::from_secs(seconds_left.unsigned_abs()))).to_string(),
            ],
        );
        let reply: Result<i64, fred::error::Error> = self.redis.observe("EVALSHA", reply).await;
        if let Err(error) = reply {
            tracing::debug!(%error, "a session was not cached");
        }
    }

    /// Ends a transaction that ended sessions: records the event, if there is one, commits, and
    /// removes the tenant's sessions from the cache. Returns the consistency token of the
    /// transaction's changes.
    ///
    /// # Errors
    /// When Postgres is unavailable. The transaction may or may not be committed then.
    pub async fn finish(
        &self,
        tx: TenantTx,
        actor: &Actor,
        event: impl Into<Option<Event>>,
        ended: Ended,
    ) -> Result<String> {
        let token = audit::finish(tx, actor, event).await?;
        self.forget(ended).await;
        Ok(token)
    }

    /// Removes all sessions of a tenant from the cache. Call it after the commit of a change that
    /// ended a session. When Redis does not answer, the entries expire within a second.
    pub async fn forget(&self, Ended { tenant }: Ended) {
        use fred::{interfaces::KeysInterface, types::Expiration};
        let expiry = Some(Expiration::EX(EPOCH_TTL.into()));
        let reply = self.redis.client().set(epoch_key(tenant), new_epoch(), expiry, None, false);
        let reply: Result<(), fred::error::Error> = self.redis.observe("SET", reply).await;
        if let Err(error) = reply {
            tracing::warn!(%error, %tenant, "cached sessions were not removed; they expire soon");
        }
    }
}

/// A random epoch. It is random so that the replacement of a lost epoch never equals an earlier
/// epoch.
fn new_epoch() -> String {
    Uuid::new_v4().simple().to_string()
}

// The braces are a hash tag: all keys of a tenant are in one slot of a cluster.
fn epoch_key(tenant: TenantId) -> String {
    format!("session-epoch:{{{tenant}}}")
}

fn session_key(tenant: TenantId, session: SessionId) -> String {
    format!("session:{{{tenant}}}:{session}")
}

/// The current time by this replica's clock, in milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(clock::now().unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

fn millis(duration: Duration) -> u128 {
    duration.as_millis()
}
