//! Collects the changes of a tenant, and finds the subjects that these changes affect.

use std::{collections::HashSet, fmt::Display, time::Duration};

use tokio::time;
use uuid::Uuid;

use super::holders;
use crate::{db::Db, error::Result, feed::Kind, ids::TenantId};

/// Maximum number of subjects in one message. If more subjects have changed, the message reports
/// all subjects as changed.
pub const MAX_SUBJECTS: usize = 1000;

/// Timeout of the query for the holders of changed roles.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Changes that have not yet been reported to the streams.
#[derive(Default)]
pub struct PendingChanges {
    users: HashSet<Uuid>,
    roles: HashSet<Uuid>,
    all_subjects: bool,
    session_ended: bool,
}

/// The subjects whose permissions may have changed.
pub enum ChangedSubjects {
    /// Only these users and service accounts.
    Listed(Vec<Uuid>),
    /// All subjects of the tenant.
    All,
}

impl PendingChanges {
    /// Adds a change. `kind` is `None` when this version of the program does not know the kind.
    /// Then all subjects are marked as changed.
    pub fn add(&mut self, kind: Option<Kind>, subject: Uuid) {
        match kind {
            Some(Kind::User | Kind::Assignment) => {
                self.users.insert(subject);
            }
            Some(Kind::Role) => {
                self.roles.insert(subject);
            }
            // The end of a session changes no permissions, but may end the stream of a caller.
            Some(Kind::Session) => self.session_ended = true,
            Some(Kind::Tenant) | None => self.add_all(),
        }
        if self.users.len() + self.roles.len() > MAX_SUBJECTS {
            self.add_all();
        }
    }

    /// Marks all subjects as changed.
    pub fn add_all(&mut self) {
        self.users.clear();
        self.roles.clear();
        self.all_subjects = true;
    }

    /// Whether there is no change, not even an ended session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.session_ended && self.has_nothing_to_report()
    }

    /// Whether there is no change to report to clients. Ended sessions are not reported to clients.
    #[must_use]
    pub fn has_nothing_to_report(&self) -> bool {
        self.users.is_empty() && self.roles.is_empty() && !self.all_subjects
    }

    /// The affected subjects. A changed role affects its holders. Returns [`ChangedSubjects::All`]
    /// when the holders can't be read, or when there are too many subjects.
    pub async fn subjects(self, db: &Db, tenant: TenantId) -> ChangedSubjects {
        if self.all_subjects {
            return ChangedSubjects::All;
        }
        let mut users = self.users;
        if !self.roles.is_empty() {
            let roles: Vec<_> = self.roles.into_iter().collect();
            match time::timeout(QUERY_TIMEOUT, holders_of(db, tenant, &roles)).await {
                Ok(Ok(holders)) => users.extend(holders),
                Ok(Err(error)) => return all_after_failure(&error),
                Err(timeout) => return all_after_failure(&timeout),
            }
        }
        if users.len() > MAX_SUBJECTS {
            return ChangedSubjects::All;
        }
        ChangedSubjects::Listed(users.into_iter().collect())
    }
}

/// The holders of these roles. Reads at most one holder more than a message can have: the extra
/// holder shows that there are too many.
async fn holders_of(db: &Db, tenant: TenantId, roles: &[Uuid]) -> Result<Vec<Uuid>> {
    let mut tx = db.begin_without_cipher(tenant).await?;
    let limit = i64::try_from(MAX_SUBJECTS).unwrap_or(i64::MAX) + 1;
    holders::of_roles(&mut tx, tenant, roles, limit).await
}

fn all_after_failure(error: &impl Display) -> ChangedSubjects {
    tracing::warn!(%error, "can't read the holders of changed roles: all subjects are reported");
    ChangedSubjects::All
}
