//! What changed in a tenant, as watchers are told of it: by subjects.

use std::{collections::HashSet, time::Duration};

use tokio::time;
use uuid::Uuid;

use super::holders;
use crate::{
    db::Db,
    error::{Error, Result},
    feed::Kind,
    ids::TenantId,
};

/// The subjects that one message names; with more it says that all changed.
pub const MAX_SUBJECTS: usize = 1000;

/// How long it may take to find a role's holders.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// What changed, until somebody is told.
#[derive(Default)]
pub struct Changed {
    users: HashSet<Uuid>,
    roles: HashSet<Uuid>,
    all: bool,
    sessions: bool,
}

/// Whose permissions may have changed.
pub enum Subjects {
    /// Just these users'.
    Users(Vec<Uuid>),
    /// Everybody's in the tenant.
    All,
}

impl Changed {
    /// Adds a change; one of no known kind may be of everything.
    pub fn add(&mut self, kind: Option<Kind>, subject: Uuid) {
        match kind {
            Some(Kind::User | Kind::Assignment) => {
                self.users.insert(subject);
            }
            Some(Kind::Role) => {
                self.roles.insert(subject);
            }
            // It alters nobody's permissions, but may end a watcher's call.
            Some(Kind::Session) => self.sessions = true,
            Some(Kind::Tenant) | None => self.add_all(),
        }
        if self.users.len() + self.roles.len() > MAX_SUBJECTS {
            self.add_all();
        }
    }

    /// Everything may have changed.
    pub fn add_all(&mut self) {
        self.users.clear();
        self.roles.clear();
        self.all = true;
    }

    /// Whether nothing changed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.sessions && self.is_quiet()
    }

    /// Whether nothing changed that watchers are told of.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.users.is_empty() && self.roles.is_empty() && !self.all
    }

    /// The subjects: a changed role is its holders. In doubt it is everybody.
    pub async fn subjects(self, db: &Db, tenant: TenantId) -> Subjects {
        if self.all {
            return Subjects::All;
        }
        let mut users = self.users;
        if !self.roles.is_empty() {
            let roles: Vec<_> = self.roles.into_iter().collect();
            match time::timeout(QUERY_TIMEOUT, holders_of(db, tenant, &roles)).await {
                Ok(Ok(holders)) => users.extend(holders),
                Ok(Err(error)) => {
                    log(&error);
                    return Subjects::All;
                }
                Err(_) => return Subjects::All,
            }
        }
        if users.len() > MAX_SUBJECTS {
            return Subjects::All;
        }
        Subjects::Users(users.into_iter().collect())
    }
}

/// One more than a message has room for tells that there are too many.
async fn holders_of(db: &Db, tenant: TenantId, roles: &[Uuid]) -> Result<Vec<Uuid>> {
    let mut tx = db.begin_unsealed(tenant).await?;
    let limit = i64::try_from(MAX_SUBJECTS).unwrap_or(i64::MAX) + 1;
    holders::of_roles(&mut tx, tenant, roles, limit).await
}

fn log(error: &Error) {
    tracing::warn!(%error, "who has the changed roles can't be read: watchers start anew");
}
