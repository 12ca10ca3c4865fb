//! The change feed: what keeps each replica's memory true.
//!
//! Whatever can alter a decision is written to the table `changes` by triggers, in
//! the transaction that alters it. Each replica follows it: at once when woken, and
//! every [`POLL`] whatever happens. Redis only wakes; nothing depends on it.

mod follower;
mod wake;

use uuid::Uuid;

pub use follower::{Feed, Follow};

use crate::ids::TenantId;

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
    fn parse(text: &str) -> Option<Self> {
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
