//! What changed, and who is told of it.
//!
//! - Rule: `record_change` (`migrations/0002_change_feed.sql`) and its triggers decide which
//!   changes are written to the feed.
//! - Rule: `changes_floor` (`migrations/0002_change_feed.sql`) decides which changes may be
//!   deleted.

use uuid::Uuid;

use crate::ids::TenantId;

/// Who is told of changes.
pub trait Follow: Send + Sync + 'static {
    /// Something changed.
    fn apply(&self, change: &Change);
    /// Changes may have been missed: forget everything.
    fn clear(&self);
}

/// Something that changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// In which tenant.
    pub tenant: TenantId,
    /// What sort of thing.
    pub kind: Kind,
    /// Which one.
    pub subject: Uuid,
}

/// What sort of thing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A tenant's state, slug or existence.
    Tenant,
    /// A user's state or existence.
    User,
    /// A role's level or permissions.
    Role,
    /// A user's roles.
    Assignment,
    /// A session was revoked.
    Session,
}

impl Kind {
    /// The kind as the table spells it; `None` for one that a newer version
    /// writes.
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
