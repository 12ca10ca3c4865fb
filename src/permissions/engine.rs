//! Loads the standing of a subject: from the cache when the cache is fresh enough, else from
//! Postgres in one round trip.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use foldhash::fast::RandomState;

use super::{
    Standing,
    standing_cache::StandingCache,
    store::{self, StandingsSnapshot},
};
use crate::{
    concurrency::fair_permits::FairPermits,
    db::Db,
    error::Result,
    feed::{Feed, FreshnessProof},
    ids::{SessionId, SubjectId, TenantId},
    proto::v1::Consistency,
};

/// Loads the standings of subjects. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) db: Db,
    cache: Arc<StandingCache>,
    pub(super) feed: Feed,
}

/// Maximum number of subjects that one query reads. One subject may have scopes of 256 KiB as JSON,
/// and these scopes take about 4 MiB of memory after decoding.
pub const SUBJECTS_PER_READ: usize = 16;

/// Permits for concurrent reads of several subjects. One tenant gets at most half of the permits.
/// Further reads wait before they query Postgres. The number of permits bounds the memory for rows
/// that wait to be decoded.
static READ_PERMITS: LazyLock<Arc<FairPermits>> = LazyLock::new(|| FairPermits::new(8));

/// The standings of several subjects of one tenant, by subject.
pub type Standings = HashMap<SubjectId, Arc<Standing>, RandomState>;

/// The result of [`Engine::read_standing_and_session`].
pub struct StandingAndSession {
    /// The standing of the subject.
    pub standing: Arc<Standing>,
    /// Whether the given session belongs to the subject and is live. False when no session was
    /// given.
    pub session_live: bool,
}

impl Engine {
    /// Creates an engine on this database. `feed` invalidates the entries of `cache`.
    #[must_use]
    pub fn new(db: Db, cache: Arc<StandingCache>, feed: Feed) -> Self {
        Self { db, cache, feed }
    }

    /// The cached standing of a subject; `None` when the standing is not cached. The
    /// [`FreshnessProof`] argument proves that the cache is fresh enough.
    #[must_use]
    pub fn cached_standing(
        &self,
        tenant: TenantId,
        user: SubjectId,
        _: FreshnessProof,
    ) -> Option<Arc<Standing>> {
        self.cache.get(tenant, user)
    }

    /// The standing of a subject, as fresh as `consistency` requires; `None` when the tenant does
    /// not exist. Concurrent callers that miss the cache for the same subject share one query.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when the cache is not fresh enough and Postgres is unavailable.
    pub async fn standing(
        &self,
        tenant: TenantId,
        user: SubjectId,
        consistency: Consistency,
    ) -> Result<Option<Arc<Standing>>> {
        if consistency == Consistency::FullyConsistent {
            return Box::pin(self.read_standing(tenant, user)).await;
        }
        let fresh = self.feed.freshness_proof();
        match fresh.and_then(|fresh| self.cached_standing(tenant, user, fresh)) {
            Some(standing) => Ok(Some(standing)),
            // Boxed, so that this future is small when the standing is cached.
            None => Box::pin(self.read_once(tenant, user)).await,
        }
    }

    /// Reads a standing that is not cached. Concurrent calls for one subject share the read, as
    /// long as the cache is fresh.
    async fn read_once(&self, tenant: TenantId, user: SubjectId) -> Result<Option<Arc<Standing>>> {
        // The loop ends when the cache is no longer fresh, for example because Postgres became
        // unavailable. Otherwise the waiting calls would read one after the other. After the loop,
        // all calls read concurrently.
        while self.feed.is_fresh() {
            if let Some(standing) = self.cache.get(tenant, user) {
                return Ok(Some(standing));
            }
            let Err(placeholder) = self.cache.get_or_placeholder(tenant, user).await else {
                // Another call read the standing. The next iteration finds the standing in the
                // cache, unless it is already stale.
                continue;
            };
            if !self.feed.is_fresh() {
                break;
            }
            let generation = self.cache.generation(tenant);
            let snapshot = self.query(tenant, &[user], None).await?;
            let standing = snapshot.and_then(|mut snapshot| snapshot.standings.pop());
            let cache =
                |standing| self.cache.cache_if_current(tenant, standing, generation, placeholder);
            return Ok(standing.map(cache));
        }
        self.read_standing(tenant, user).await
    }

    async fn read_standing(
        &self,
        tenant: TenantId,
        user: SubjectId,
    ) -> Result<Option<Arc<Standing>>> {
        let snapshot = self.query(tenant, &[user], None).await?;
        Ok(snapshot.and_then(|mut snapshot| snapshot.standings.pop()).map(Arc::new))
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
        users: &[SubjectId],
        consistency: Consistency,
    ) -> Result<Standings> {
        let mut standings =
            Standings::with_capacity_and_hasher(users.len(), RandomState::default());
        let (mut to_read, mut placeholders, mut in_flight) = (Vec::new(), Vec::new(), Vec::new());
        let may_use_cache = consistency != Consistency::FullyConsistent && self.feed.is_fresh();
        for &user in users {
            if !may_use_cache {
                to_read.push(user);
            } else if let Some(standing) = self.cache.get(tenant, user) {
                standings.insert(user, standing);
            } else if let Some(placeholder) = self.cache.placeholder(tenant, user) {
                to_read.push(user);
                placeholders.push(placeholder);
            } else {
                in_flight.push(user);
            }
        }
        if !to_read.is_empty() {
            let _permit = READ_PERMITS.acquire(tenant).await;
            let generation = self.cache.generation(tenant);
            let snapshot = self.query(tenant, &to_read, None).await?;
            let read_standings = snapshot.map(|snapshot| snapshot.standings).unwrap_or_default();
            // `placeholders` has one placeholder for each subject in `to_read`, in the same order, or
            // is empty when the cache may not be used.
            let mut placeholders = placeholders.into_iter();
            for (user, standing) in to_read.into_iter().zip(read_standings) {
                let standing = match placeholders.next() {
                    Some(placeholder) => {
                        self.cache.cache_if_current(tenant, standing, generation, placeholder)
                    }
                    None => Arc::new(standing),
                };
                standings.insert(user, standing);
            }
        }
        // Wait for the reads of other calls only after the read of this call, so that two calls
        // can't wait for each other.
        for user in in_flight {
            let standing = self.standing(tenant, user, consistency).await?;
            standings.extend(standing.map(|standing| (user, standing)));
        }
        Ok(standings)
    }

    /// Reads from Postgres, in one round trip, the current standing of a subject and whether a
    /// session is live. Returns `None` when the tenant does not exist. Also caches the standing.
    ///
    /// # Errors
    /// Returns UNAVAILABLE when Postgres is unavailable.
    pub async fn read_standing_and_session(
        &self,
        tenant: TenantId,
        user: SubjectId,
        session: Option<SessionId>,
    ) -> Result<Option<StandingAndSession>> {
        let placeholder = match self.cache.get(tenant, user) {
            None if self.feed.is_fresh() => self.cache.placeholder(tenant, user),
            _ => None,
        };
        let generation = self.cache.generation(tenant);
        let snapshot = self.query(tenant, &[user], session).await?;
        let Some(mut snapshot) = snapshot else { return Ok(None) };
        let session_live = snapshot.session_live;
        let standing = snapshot.standings.pop().map(|standing| {
            // The cached copy may share roles that an earlier read has cached. The result has the
            // roles as this call read them.
            if let Some(placeholder) = placeholder {
                self.cache.cache_if_current(tenant, standing.clone(), generation, placeholder);
            }
            Arc::new(standing)
        });
        Ok(standing.map(|standing| StandingAndSession { standing, session_live }))
    }

    /// Reads standings from Postgres, and records the snapshot of the read in the feed.
    async fn query(
        &self,
        tenant: TenantId,
        users: &[SubjectId],
        session: Option<SessionId>,
    ) -> Result<Option<StandingsSnapshot>> {
        let snapshot = store::standings(&self.db, tenant, users, session).await?;
        if let Some(snapshot) = &snapshot {
            self.feed.record_snapshot(snapshot.snapshot).await?;
        }
        Ok(snapshot)
    }
}
