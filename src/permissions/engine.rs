//! Loads the standing of a subject: from the cache when the cache is fresh enough, else from
//! Postgres in one round trip.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use foldhash::fast::RandomState;

use super::{
    Standing,
    memory::Memory,
    store::{self, Subjects},
};
use crate::{
    concurrency::fair_permits::FairPermits,
    db::Db,
    error::Result,
    feed::{Feed, FreshnessProof},
    ids::{SessionId, TenantId, UserId},
    proto::v1::Consistency,
};

/// Loads the standings of subjects. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    db: Db,
    memory: Arc<Memory>,
    pub(super) feed: Feed,
}

/// Maximum number of subjects that one query reads. Each may have 256 KiB of scopes, which take
/// about 4 MiB once they are decoded.
pub const SUBJECTS_PER_READ: usize = 16;

/// Permits for concurrent reads of several subjects. One tenant gets at most half of the permits.
/// Further reads wait before they query Postgres. This bounds the memory for rows that wait to be
/// decoded.
static READ_PERMITS: LazyLock<Arc<FairPermits>> = LazyLock::new(|| FairPermits::new(8));

/// The standings of several subjects of one tenant, by subject.
pub type Standings = HashMap<UserId, Arc<Standing>, RandomState>;

/// The result of [`Engine::read`].
pub struct Read {
    /// The standing of the subject.
    pub standing: Arc<Standing>,
    /// Whether the given session belongs to the subject and is live. False when no session was
    /// given.
    pub session_live: bool,
}

impl Engine {
    /// Creates an engine on this database. `feed` invalidates the entries of `memory`.
    #[must_use]
    pub fn new(db: Db, memory: Arc<Memory>, feed: Feed) -> Self {
        Self { db, memory, feed }
    }

    /// The cached standing of a subject; `None` when the standing is not cached. The
    /// [`FreshnessProof`] argument proves that the cache is fresh enough.
    #[must_use]
    pub fn remembered(
        &self,
        tenant: TenantId,
        user: UserId,
        _: FreshnessProof,
    ) -> Option<Arc<Standing>> {
        self.memory.get(tenant, user)
    }

    /// The standing of a subject, as fresh as `consistency` requires; `None` when the tenant does
    /// not exist. Concurrent callers that miss the cache for the same subject share one query.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when the cache is not fresh enough and Postgres is unavailable.
    pub async fn standing(
        &self,
        tenant: TenantId,
        user: UserId,
        consistency: Consistency,
    ) -> Result<Option<Arc<Standing>>> {
        if consistency == Consistency::FullyConsistent {
            return Box::pin(self.read_standing(tenant, user)).await;
        }
        let fresh = self.feed.fresh();
        match fresh.and_then(|fresh| self.remembered(tenant, user, fresh)) {
            Some(standing) => Ok(Some(standing)),
            // Boxed to keep this future small when the cache answers.
            None => Box::pin(self.fetch(tenant, user)).await,
        }
    }

    async fn fetch(&self, tenant: TenantId, user: UserId) -> Result<Option<Arc<Standing>>> {
        // Checks the freshness in each iteration. When Postgres becomes unavailable, the callers
        // that wait for one read must not read one after the other. After the loop, all callers
        // read at the same time.
        while self.feed.is_fresh() {
            if let Some(standing) = self.memory.get(tenant, user) {
                return Ok(Some(standing));
            }
            let Err(placeholder) = self.memory.get_or_placeholder(tenant, user).await else {
                // Another call read the standing. The next iteration finds the standing in the
                // cache, unless it is already stale.
                continue;
            };
            if !self.feed.is_fresh() {
                break;
            }
            let generation = self.memory.generation(tenant);
            let read = self.query(tenant, &[user], None).await?;
            let standing = read.and_then(|mut read| read.standings.pop());
            let keep = |read| self.memory.keep(tenant, read, generation, placeholder);
            return Ok(standing.map(keep));
        }
        self.read_standing(tenant, user).await
    }

    async fn read_standing(&self, tenant: TenantId, user: UserId) -> Result<Option<Arc<Standing>>> {
        let read = self.query(tenant, &[user], None).await?;
        Ok(read.and_then(|mut read| read.standings.pop()).map(Arc::new))
    }

    /// The standings of several subjects, as fresh as `consistency` requires. `users` has at most
    /// [`SUBJECTS_PER_READ`] subjects, each once. The result is empty when the tenant does not
    /// exist. One query reads all subjects that are neither cached nor being read by another call.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when the cache is not fresh enough and Postgres is unavailable.
    pub async fn standings(
        &self,
        tenant: TenantId,
        users: &[UserId],
        consistency: Consistency,
    ) -> Result<Standings> {
        let mut standings =
            Standings::with_capacity_and_hasher(users.len(), RandomState::default());
        let (mut to_read, mut placeholders, mut in_flight) = (Vec::new(), Vec::new(), Vec::new());
        let from_cache = consistency != Consistency::FullyConsistent && self.feed.is_fresh();
        for &user in users {
            if !from_cache {
                to_read.push(user);
            } else if let Some(standing) = self.memory.get(tenant, user) {
                standings.insert(user, standing);
            } else if let Some(placeholder) = self.memory.placeholder(tenant, user) {
                to_read.push(user);
                placeholders.push(placeholder);
            } else {
                in_flight.push(user);
            }
        }
        if !to_read.is_empty() {
            let _permit = READ_PERMITS.acquire(tenant).await;
            let generation = self.memory.generation(tenant);
            let read = self.query(tenant, &to_read, None).await?;
            let read_standings = read.map(|read| read.standings).unwrap_or_default();
            let mut placeholders = placeholders.into_iter();
            for (user, standing) in to_read.into_iter().zip(read_standings) {
                let standing = match placeholders.next() {
                    Some(placeholder) => {
                        self.memory.keep(tenant, standing, generation, placeholder)
                    }
                    None => Arc::new(standing),
                };
                standings.insert(user, standing);
            }
        }
        // Wait for the reads of other calls only after this call's own reads are done, so that two
        // calls can't wait for each other.
        for user in in_flight {
            let standing = self.standing(tenant, user, consistency).await?;
            standings.extend(standing.map(|standing| (user, standing)));
        }
        Ok(standings)
    }

    /// Reads from Postgres, in one round trip, the current standing of a subject and whether a
    /// session is live. Also caches the standing.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when Postgres is unavailable.
    pub async fn read(
        &self,
        tenant: TenantId,
        user: UserId,
        session: Option<SessionId>,
    ) -> Result<Option<Read>> {
        let placeholder = match self.memory.get(tenant, user) {
            None if self.feed.is_fresh() => self.memory.placeholder(tenant, user),
            _ => None,
        };
        let generation = self.memory.generation(tenant);
        let read = self.query(tenant, &[user], session).await?;
        let Some(mut read) = read else { return Ok(None) };
        let session_live = read.session_live;
        let standing = read.standings.pop().map(|standing| {
            // The cached copy may share roles that were read earlier, as old as the feed allows.
            // The caller gets the standing exactly as this call read it.
            if let Some(placeholder) = placeholder {
                self.memory.keep(tenant, standing.clone(), generation, placeholder);
            }
            Arc::new(standing)
        });
        Ok(standing.map(|standing| Read { standing, session_live }))
    }

    async fn query(
        &self,
        tenant: TenantId,
        users: &[UserId],
        session: Option<SessionId>,
    ) -> Result<Option<Subjects>> {
        let read = store::standings(&self.db, tenant, users, session).await?;
        if let Some(read) = &read {
            self.feed.record_snapshot(read.xmax);
        }
        Ok(read)
    }
}
