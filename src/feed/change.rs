//! The changes in the feed, and the trait for listeners.
//!
//! - Rule: `record_change` (`migrations/0029_purge_tenants.sql`) and its triggers decide which
//!   changes are written to the feed.
//! - Rule: `record_ended_sessions` (`migrations/0053_ended_sessions.sql`) decides the same for ended
//!   sessions.
//! - Rule: `changes_floor` (`migrations/0002_change_feed.sql`) decides which changes may be
//!   deleted.

use uuid::Uuid;

use crate::ids::TenantId;

/// A listener for changes. Each in-memory cache implements this trait, to drop outdated entries.
pub trait ChangeListener: Send + Sync + 'static {
    /// Called for each change.
    fn apply(&self, change: &Change);
    /// Called when changes may have been missed. The listener must drop all entries of its cache.
    fn clear(&self);
}

/// One change that can alter a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub tenant: TenantId,
    pub kind: Kind,
    /// The id of the changed tenant, user, service account, role, session or API key. For an
    /// assignment, the id of its subject.
    pub subject: Uuid,
}

/// The kinds of changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A tenant's state, slug or settings changed, or the tenant was deleted.
    Tenant,
    /// A user's state changed, or a user or service account was deleted.
    User,
    /// A role's name, level or permissions changed.
    Role,
    /// A subject's role assignment was created, changed or deleted.
    Assignment,
    /// A session or an API key was revoked.
    Session,
}

impl Kind {
    /// Parses the value of the column `changes.kind`; `None` when this version of the program does
    /// not know the kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "tenant" => Self::Tenant,
            "user" => Self::User,
            "role" => Self::Role,
            "assignment" => Self::Assignment,
            "session" => Self::Session,
            _ => return None,
        })
    }
}
