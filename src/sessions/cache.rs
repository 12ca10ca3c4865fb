//! Live sessions, cached in Redis for all replicas.
//!
//! Postgres is the truth. Four rules keep the cache from ever being believed for
//! long when it is wrong:
//!
//! - Each entry carries its tenant's epoch. Whatever ends a session (sign-out,
//!   revocation, a disabled user, a suspended tenant) changes the epoch after
//!   its commit, and a read that was under way meanwhile can't fill the cache
//!   with what it saw before.
//! - An entry counts for 750 ms ([`TRUST`]) after the look-up before Postgres was read,
//!   by Redis's own clock, however late it was written. If the change of epoch got
//!   lost (Redis was away, was restarted, failed over), nobody believes the old entry
//!   for longer than that.
//! - Each entry has a MAC over all that it says ([`super::entry`]). Who can write to Redis
//!   can take entries away, and show one again within its time; it can't make one.
//! - What an entry says is remembered no longer than the entry counts. Then Postgres is
//!   asked.
//!
//! An empty cache says nothing, and neither does a Redis that does not answer. A key that
//! can't be one of ours is as if it were not there, and is never read whole.

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

/// For how long after its end a look-up may still find a session live, at most: the trust,
/// and a quarter of a second for clocks that run at different speeds.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(1);

/// What arrives in Redis longer than this after the look-up is too old to keep.
const MAX_AGE: Duration = Duration::from_millis(250);

/// How long an epoch is kept, in seconds. A lost one only empties the cache.
const EPOCH_LIFE: u32 = 7 * 24 * 60 * 60;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct SessionCache {
    redis: Redis,
    keys: Arc<EntryKeys>,
    read: Script,
    fill: Script,
}

/// What the cache says of a session.
pub enum Lookup {
    /// It is live, and this user's; that may be believed until then.
    Live(Instant),
    /// Ask Postgres; where that says live, hand the ticket to
    /// [`SessionCache::fill`].
    Unknown(Ticket),
}

/// A look-up that found nothing: fills the cache if nothing has changed since.
pub struct Ticket {
    /// What to keep; `None` where Redis did not answer.
    entry: Option<Entry>,
}

impl SessionCache {
    /// A cache in this Redis, whose entries these keys authenticate.
    #[must_use]
    pub fn new(redis: Redis, keys: Arc<EntryKeys>) -> Self {
        Self {
            redis,
            keys,
            read: redis::script(include_str!("read.lua")),
            fill: redis::script(include_str!("fill.lua")),
        }
    }

    /// Looks a session up.
    pub async fn lookup(&self, tenant: TenantId, session: SessionId, user: UserId) -> Lookup {
        let (asked, own) = (Instant::now(), now());
        let answer = self.read.evalsha_with_reload(
            self.redis.client(),
            vec![epoch_key(tenant), session_key(tenant, session)],
            vec![new_epoch(), EPOCH_LIFE.to_string(), MAX_ENTRY.to_string()],
        );
        let answer: Result<(String, String, u64), fred::error::Error> =
            self.redis.observe("EVALSHA", answer).await;
        let read = answer.ok().and_then(|(epoch, kept, redis)| {
            let epoch = Uuid::try_parse(&epoch).ok()?;
            Some((epoch, kept, redis))
        });
        let Some((epoch, kept, redis)) = read else {
            return Lookup::Unknown(Ticket { entry: None });
        };
        let counts_for = self
            .keys
            .read(tenant, session, &kept)
            .filter(|kept| kept.epoch == epoch && kept.user == user)
            .and_then(|kept| kept.counts_for(Now { redis, own }));
        if let Some(left) = counts_for {
            return Lookup::Live(asked + left);
        }
        let entry = Entry { tenant, session, user, epoch, looked_up: redis, written: own };
        Lookup::Unknown(Ticket { entry: Some(entry) })
    }

    /// Keeps a session that Postgres said is live after the look-up, for the
    /// seconds that it still has.
    pub async fn fill(&self, ticket: Ticket, ends_in: i64) {
        let Some(entry) = ticket.entry.filter(|_| ends_in > 0) else { return };
        let Some(text) = self.keys.write(&entry) else { return };
        let filled = self.fill.evalsha_with_reload(
            self.redis.client(),
            vec![epoch_key(entry.tenant), session_key(entry.tenant, entry.session)],
            vec![
                entry.epoch.simple().to_string(),
                text,
                entry.looked_up.to_string(),
                millis(MAX_AGE).to_string(),
                millis(TRUST.min(Duration::from_secs(ends_in.unsigned_abs()))).to_string(),
            ],
        );
        let filled: Result<i64, fred::error::Error> = self.redis.observe("EVALSHA", filled).await;
        if let Err(error) = filled {
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

    /// Removes all sessions of a tenant, after the commit of a change that ended one. When Redis
    /// does not answer, the entries expire soon.
    pub async fn forget(&self, Ended { tenant }: Ended) {
        use fred::{interfaces::KeysInterface, types::Expiration};
        let expiry = Some(Expiration::EX(EPOCH_LIFE.into()));
        let set = self.redis.client().set(epoch_key(tenant), new_epoch(), expiry, None, false);
        let set: Result<(), fred::error::Error> = self.redis.observe("SET", set).await;
        if let Err(error) = set {
            tracing::warn!(%error, %tenant, "cached sessions are left to expire");
        }
    }
}

/// Random, so that an epoch that was lost and made anew is never an old one.
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

/// Now by this replica's clock, in ms since 1970.
fn now() -> u64 {
    u64::try_from(clock::now().unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

fn millis(duration: Duration) -> u128 {
    duration.as_millis()
}
