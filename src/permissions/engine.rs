//! Knows what each subject holds: from memory where that may answer, else from
//! Postgres, in one round trip.

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
    concurrency::shares::Shares,
    db::Db,
    error::Result,
    feed::{Feed, Fresh},
    ids::{SessionId, TenantId, UserId},
    proto::v1::Consistency,
};

/// Knows what each subject holds. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    db: Db,
    memory: Arc<Memory>,
    pub(super) feed: Feed,
}

/// Subjects that are read in one query, at most. Each has scopes of up to 256 KiB, which take
/// some 4 MiB once they are decoded.
pub const READ_AT_ONCE: usize = 16;

/// Reads of several subjects at the same time, at most half of them a tenant's. Further ones
/// wait before they ask Postgres, so that what was read and waits to be decoded is bounded.
static READS: LazyLock<Arc<Shares>> = LazyLock::new(|| Shares::new(8));

/// What subjects of one tenant hold.
pub type Standings = HashMap<UserId, Arc<Standing>, RandomState>;

/// A standing, and whether a session is live with it.
pub struct Read {
    /// What the subject holds.
    pub standing: Arc<Standing>,
    /// Whether the session that was asked about is the user's and live; false
    /// when none was asked about.
    pub session_live: bool,
}

impl Engine {
    /// An engine on this database, whose memory `feed` keeps true.
    #[must_use]
    pub fn new(db: Db, memory: Arc<Memory>, feed: Feed) -> Self {
        Self { db, memory, feed }
    }

    /// A subject's standing, if memory has it.
    #[must_use]
    pub fn remembered(&self, tenant: TenantId, user: UserId, _: Fresh) -> Option<Arc<Standing>> {
        self.memory.get(tenant, user)
    }

    /// What a subject holds, as fresh as asked for; `None` when there is no such
    /// tenant. Many that ask at once for a subject that memory lacks make one
    /// query.
    ///
    /// # Errors
    /// UNAVAILABLE when memory may not answer and Postgres is away: it never
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
            // Boxed, so that what memory answers need not carry its size along.
            None => Box::pin(self.fetch(tenant, user)).await,
        }
    }

    async fn fetch(&self, tenant: TenantId, user: UserId) -> Result<Option<Arc<Standing>>> {
        // Asked anew on each turn: those who wait for one reader must not wait for
        // one another once Postgres has gone away.
        while self.feed.is_fresh() {
            if let Some(standing) = self.memory.get(tenant, user) {
                return Ok(Some(standing));
            }
            let Err(placeholder) = self.memory.get_or_placeholder(tenant, user).await else {
                // Somebody else read it: the next turn finds it, if it is not
                // stale already.
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

    /// What subjects hold, at most [`READ_AT_ONCE`], each named once, as fresh as asked for;
    /// nothing when there is no such tenant. One query for all that memory lacks and that
    /// nobody else is reading.
    ///
    /// # Errors
    /// UNAVAILABLE when memory may not answer and Postgres is away.
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
        // Waited for only now that others need not wait for us.
        for user in others {
            let standing = self.standing(tenant, user, consistency).await?;
            found.extend(standing.map(|standing| (user, standing)));
        }
        Ok(found)
    }

    /// What a subject holds now and whether a session is live, read from
    /// Postgres in one round trip, and remembered.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away.
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
            // What is kept shares roles that others read before, as old as the feed
            // allows; what is answered is what was read.
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
            self.feed.saw(read.xmax);
        }
        Ok(read)
    }
}
