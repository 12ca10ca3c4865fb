//! The cache of live sessions and API keys in Redis, shared by all replicas. The session of a
//! service account's access token is its API key. So in this file, a session can be an API key.
//!
//! Postgres has the authoritative state. Five rules bound how long a wrong entry is used:
//!
//! - Each entry contains its tenant's epoch. Every change that ends a session (for example a
//!   sign-out, a revocation, a disabled user, a suspended tenant) replaces the epoch after the
//!   commit of the change. So a read that was in progress at that time can't fill the cache with
//!   the state before the commit.
//! - An entry is valid for 750 ms ([`super::entry`]), by Redis's own clock. The 750 ms start at the
//!   Redis lookup that found no entry, before the read of Postgres. They do not depend on when the
//!   entry is written. The bound also holds when the change of the epoch is lost, because Redis
//!   was unavailable, was restarted or failed over.
//! - A replica remembers for [`MAX_STALENESS`] which sessions ended, from the change feed
//!   ([`super::verified`]), and uses no entry of such a session. This also holds after a failover
//!   to a server of Redis whose clock is behind, so that an entry seems to be young.
//! - Each entry has a MAC over its whole content ([`super::entry`]). A party with access to Redis
//!   can delete entries, and replay an entry while it is valid, but can't create an entry.
//! - A replica keeps the result of an entry in memory only while the entry is valid. After that,
//!   Postgres is read.
//!
//! If an entry is missing or Redis does not respond, Postgres is read. A value that is larger than
//! an entry can be is treated as missing.
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
    EndedSessions,
    entry::{ENTRY_LIFETIME, Entry, EntryKeys, MAX_AGE, MAX_ENTRY, Now},
};
use crate::{
    audit::{self, Actor, Event},
    clock,
    db::TenantTx,
    error::Result,
    ids::{SessionId, SubjectId, TenantId},
    redis::{self, Redis},
};

/// Maximum staleness: no lookup reports a session as live longer than this after the session
/// ended, whatever the clock of Redis says. The value is [`MAX_AGE`] plus 250 ms for clocks that
/// run at different speeds. A replica that follows the change feed knows the end of a session
/// earlier.
pub(super) const MAX_STALENESS: Duration = MAX_AGE.saturating_add(Duration::from_millis(250));

/// Maximum time from the lookup until the entry is written to Redis. A later entry is dropped.
const MAX_FILL_DELAY: Duration = Duration::from_millis(250);

/// Time to live of an epoch in Redis, in seconds. When an epoch expires, the tenant's entries are
/// no longer used.
const EPOCH_TTL: u32 = 7 * 24 * 60 * 60;

/// The cache of live sessions and API keys. Cheap to clone.
#[derive(Clone)]
pub struct SessionCache {
    redis: Redis,
    keys: Arc<EntryKeys>,
    read_script: Script,
    fill_script: Script,
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
    /// The entry to write; `None` when Redis did not respond.
    entry: Option<Entry>,
}

impl SessionCache {
    /// Creates the cache. The keys authenticate its entries.
    #[must_use]
    pub fn new(redis: Redis, keys: Arc<EntryKeys>) -> Self {
        Self {
            redis,
            keys,
            read_script: redis::script(include_str!("read.lua")),
            fill_script: redis::script(include_str!("fill.lua")),
        }
    }

    /// Looks up a user's session.
    pub async fn lookup(&self, tenant: TenantId, session: SessionId, user: SubjectId) -> Lookup {
        let (lookup_time, replica_time_ms) = (Instant::now(), replica_time_ms());
        let keys = vec![epoch_key(tenant), session_key(tenant, session)];
        let arguments = vec![new_epoch(), EPOCH_TTL.to_string(), MAX_ENTRY.to_string()];
        let reply: Result<(String, String, u64), fred::error::Error> =
            self.redis.eval(&self.read_script, keys, arguments).await;
        let reply = reply.ok().and_then(|(epoch, entry_text, redis_time_ms)| {
            let epoch = Uuid::try_parse(&epoch).ok()?;
            Some((epoch, entry_text, redis_time_ms))
        });
        let Some((epoch, entry_text, redis_time_ms)) = reply else {
            return Lookup::Unknown(Ticket { entry: None });
        };
        let valid_for = self
            .keys
            .verify(tenant, session, &entry_text)
            .filter(|entry| entry.epoch == epoch && entry.user == user)
            .and_then(|entry| entry.valid_for(Now { redis_time_ms, replica_time_ms }));
        if let Some(time_left) = valid_for {
            return Lookup::Live(lookup_time + time_left);
        }
        let entry = Entry {
            tenant,
            session,
            user,
            epoch,
            looked_up_redis_clock: redis_time_ms,
            looked_up_writer_clock: replica_time_ms,
        };
        Lookup::Unknown(Ticket { entry: Some(entry) })
    }

    /// Caches a session that Postgres reported as live after the lookup. The access token expires
    /// in `seconds_left`.
    pub async fn fill(&self, ticket: Ticket, seconds_left: i64) {
        let Some(entry) = ticket.entry.filter(|_| seconds_left > 0) else { return };
        let Some(entry_text) = self.keys.sign(&entry) else { return };
        let keys = vec![epoch_key(entry.tenant), session_key(entry.tenant, entry.session)];
        let lifetime = ENTRY_LIFETIME.min(Duration::from_secs(seconds_left.unsigned_abs()));
        let arguments = vec![
            entry.epoch.simple().to_string(),
            entry_text,
            entry.looked_up_redis_clock.to_string(),
            millis(MAX_FILL_DELAY).to_string(),
            millis(lifetime).to_string(),
        ];
        let reply: Result<i64, fred::error::Error> =
            self.redis.eval(&self.fill_script, keys, arguments).await;
        if let Err(error) = reply {
            tracing::debug!(%error, "a session was not cached");
        }
    }

    /// Finishes a transaction that ended sessions: records the event, if there is one, commits, and
    /// removes the tenant's sessions from the cache. Returns the consistency token of the
    /// transaction's changes.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable. It is then unknown whether the transaction was
    /// committed.
    pub async fn finish(
        &self,
        tx: TenantTx,
        actor: &Actor,
        event: impl Into<Option<Event>>,
        ended_sessions: EndedSessions,
    ) -> Result<String> {
        let token = audit::finish(tx, actor, event).await?;
        self.forget(ended_sessions).await;
        Ok(token)
    }

    /// Removes all sessions of a tenant from the cache: replaces the tenant's epoch. Call this
    /// after the commit of a change that ended a session. When Redis does not respond, the entries
    /// expire within a second.
    pub async fn forget(&self, EndedSessions { tenant }: EndedSessions) {
        use fred::{interfaces::KeysInterface, types::Expiration};
        let expiry = Some(Expiration::EX(EPOCH_TTL.into()));
        let reply = self.redis.client().set(epoch_key(tenant), new_epoch(), expiry, None, false);
        let reply: Result<(), fred::error::Error> = self.redis.run("SET", reply).await;
        if let Err(error) = reply {
            let text = "a tenant's cached sessions were not removed; they expire within a second";
            tracing::warn!(%error, %tenant, "{text}");
        }
    }
}

/// A new epoch. It is random, so it never equals an earlier epoch of the tenant, also when Redis
/// has lost the earlier epoch.
fn new_epoch() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The key of a tenant's epoch in Redis.
// The braces are a hash tag: Redis Cluster stores all keys of a tenant in one slot, as a script
// requires.
pub fn epoch_key(tenant: TenantId) -> String {
    format!("session-epoch:{{{tenant}}}")
}

fn session_key(tenant: TenantId, session: SessionId) -> String {
    format!("session:{{{tenant}}}:{session}")
}

/// The current time by this replica's clock, in milliseconds since 1970.
fn replica_time_ms() -> u64 {
    u64::try_from(clock::now().unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

fn millis(duration: Duration) -> u128 {
    duration.as_millis()
}
