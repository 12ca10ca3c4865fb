//! The change feed, as this replica follows it: what keeps memory true.
//!
//! Whatever can alter a decision is written to the table `changes` by triggers, in
//! the transaction that alters it. Each replica follows it: at once when woken, and
//! every quarter of a second whatever happens. Redis only wakes; nothing depends
//! on it.
//!
//! [`Feed`] is what the rest of the service knows of it; `follower` reads, `wake`
//! says and hears that there is something to read, `since` reads for a watcher that
//! comes back, `trim` deletes what nobody
//! needs any more, `token` and `progress` say how much was seen.

mod follower;
mod metrics;
mod progress;
mod since;
mod state;
mod token;
mod trim;
mod wake;

use uuid::Uuid;

pub use state::{CONNECTIONS, Connections, Feed, Fresh};
pub use token::Sealer;

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
