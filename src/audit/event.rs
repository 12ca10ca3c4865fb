//! What an entry of the trail says.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EventKind, Origin};
use crate::ids::{SessionId, TenantId, UserId};

/// Who acts. Nobody, for a call without a token.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The actor's own tenant.
    pub tenant: Option<TenantId>,
    /// The actor.
    pub user: Option<UserId>,
    /// The actor's session.
    pub session: Option<SessionId>,
    /// Where the act comes from.
    pub origin: Origin,
}

impl Actor {
    /// Somebody without a token.
    #[must_use]
    pub fn anonymous(origin: &Origin) -> Self {
        Self { tenant: None, user: None, session: None, origin: origin.clone() }
    }
}

/// What happened. It holds ids, never emails, tokens or secrets.
pub struct Event {
    pub(super) kind: EventKind,
    pub(super) target: Option<Uuid>,
    pub(super) detail: Map<String, Value>,
}

impl Event {
    /// An event of a kind, without target or detail.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self { kind, target: None, detail: Map::new() }
    }

    /// The platform's staff called a method in another tenant.
    #[must_use]
    pub fn across_tenants(method: &str) -> Self {
        Self::new(EventKind::ActedAcrossTenants).detail("method", method)
    }

    /// What it happened to.
    #[must_use]
    pub fn target(mut self, id: Uuid) -> Self {
        self.target = Some(id);
        self
    }

    /// More about it.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }
}
