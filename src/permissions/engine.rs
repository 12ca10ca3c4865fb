//! Loads what each subject holds: from the cache when the cache may answer, else from Postgres in
//! one round trip.

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

/// Loads what subjects hold. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    db: Db,
    memory: Arc<Memory>,
    pub(super) feed: Feed,
}

/// Maximum number of subjects that one query reads. Each may have 256 KiB of scopes, which take
/// about 4 MiB once they are decoded.
pub const SUBJECTS_PER_READ: usize = 16;

/// Permits for concurrent reads of several subjects. One tenant gets at most half of them. Further
/// reads wait before they query Postgres: this bounds the memory for rows that were read and wait
/// to be decoded.
static READS: LazyLock<Arc<FairPermits>> = LazyLock::new(|| FairPermits::new(8));

/// What subjects of one tenant hold, by subject.
pub type Standings = HashMap<UserId, Arc<Standing>, RandomState>;

/// The result of [`Engine::read`].
pub struct Read {
    /// What the subject holds.
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

    /// The cached standing of a subject, if there is one. The [`FreshnessProof`] argument proves that the
    /// cache may answer.
    #[must_use]
    pub fn remembered(
        &self,
        tenant: TenantId,
        user: UserId,
        _: FreshnessProof,
    ) -> Option<Arc<Standing>> {
        self.memory.get(tenant, user)
    }

    /// What a subject holds, as fresh as `consistency` asks; `None` when the tenant does not
    /// exist. Concurrent callers that miss the cache for the same subject share one query.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when the cache may not answer and Postgres is unavailable. It never
    /// guesses.
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
        // Checks the freshness in each iteration. When Postgres becomes unavailable, callers that
        // wait for one read must not read one after the other: after the loop all read at once.
        while self.feed.is_fresh() {
            if let Some(standing) = self.memory.get(tenant, user) {
                return Ok(Some(standing));
            }
            let Err(placeholder) = self.memory.get_or_placeholder(tenant, user).await else {
                // Another call read the standing. The next iteration finds it, unless it is
                // already stale.
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

    /// What several subjects hold, as fresh as `consistency` asks. Takes at most [`SUBJECTS_PER_READ`]
    /// subjects, each once. The result is empty when the tenant does not exist. One query reads
    /// all subjects that are neither cached nor being read by another call.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when the cache may not answer and Postgres is unavailable.
    pub async fn standings(
        &self,
        tenant: TenantId,
        users: &[UserId],
        consistency: Consistency,
    ) -> Result<Standings> {
        let mut found = Standings::with_capacity_and_hasher(users.len(), RandomState::default());
        let (mut ours, mut placeholders, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let from_memory = consistency != Consistency::FullyConsistent && self.feed.is_fresh();
        for &user in users {
            if !from_memory {
                ours.push(user);
            } else if let Some(standing) = self.memory.get(tenant, user) {
                found.insert(user, standing);
            } else if let Some(placeholder) = self.memory.placeholder(tenant, user) {
                ours.push(user);
                placeholders.push(placeholder);
            } else {
                others.push(user);
            }
        }
        if !ours.is_empty() {
            let _permit = READS.acquire(tenant).await;
            let generation = self.memory.generation(tenant);
            let read = self.query(tenant, &ours, None).await?;
            let read = read.map(|read| read.standings).unwrap_or_default();
            let mut placeholders = placeholders.into_iter();
            for (user, standing) in ours.into_iter().zip(read) {
                let standing = match placeholders.next() {
                    Some(placeholder) => {
                        self.memory.keep(tenant, standing, generation, placeholder)
                    }
                    None => Arc::new(standing),
                };
                found.insert(user, standing);
            }
        }
        // Wait for the reads of other calls only after this call's own reads are done, so that two
        // calls can't wait for each other.
        for user in others {
            let standing = self.standing(tenant, user, consistency).await?;
            found.extend(standing.map(|standing| (user, standing)));
        }
        Ok(found)
    }

    /// Reads from Postgres, in one round trip, what a subject holds now and whether a session is
    /// live. Also caches the standing.
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
            // The caller gets the standing exactly as it was read.
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
