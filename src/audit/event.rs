//! What an entry of the trail says.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{EventKind, Origin};
use crate::ids::{SessionId, TenantId, UserId};

/// The bound on an event's detail, as JSON in bytes. The largest scope fits.
pub const DETAIL_BYTES: usize = 16 * 1024;

/// The bound on one list in a detail, as JSON in bytes.
const LIST_BYTES: usize = 10 * 1024;

/// What of [`DETAIL_BYTES`] is kept free to say what was left out.
const OMITTED_BYTES: usize = 512;

/// The key that says what was left out of a detail.
const OMITTED: &str = "omitted";

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

/// What happened. It holds ids, names of roles and tenants, and what was changed, never
/// personal data, tokens or secrets.
pub struct Event {
    pub(super) kind: EventKind,
    pub(super) target: Option<Uuid>,
    pub(super) detail: Map<String, Value>,
    /// The bytes that the detail takes as JSON, at most.
    bytes: usize,
}

impl Event {
    /// An event of a kind, without target or detail.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self { kind, target: None, detail: Map::new(), bytes: OMITTED_BYTES }
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

    /// More about it. A value for which there is no room is left out, and `omitted` says
    /// of how many bytes it was.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let bytes = size(&value);
        let needed = bytes + entry_size(key);
        if self.bytes + needed > DETAIL_BYTES {
            return self.omit(key, &json!({ "bytes": bytes }));
        }
        self.bytes += needed;
        self.detail.insert(key.to_owned(), value);
        self
    }

    /// More about it, where there is something to say.
    #[must_use]
    pub fn maybe(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.detail(key, value),
            None => self,
        }
    }

    /// A list, where it is not empty. It is cut where it becomes too long, and `omitted`
    /// says of how many items.
    #[must_use]
    pub fn list<V: Into<Value>>(self, key: &str, items: impl IntoIterator<Item = V>) -> Self {
        let room = (DETAIL_BYTES - self.bytes).saturating_sub(entry_size(key)).min(LIST_BYTES);
        let (mut kept, mut bytes, mut omitted) = (Vec::new(), 2, 0_u64);
        for item in items {
            let item = item.into();
            bytes += size(&item) + 1;
            if bytes > room {
                omitted += 1;
            } else {
                kept.push(item);
            }
        }
        let listed = if kept.is_empty() { self } else { self.detail(key, kept) };
        if omitted == 0 { listed } else { listed.omit(key, &json!({ "items": omitted })) }
    }

    /// A change of a value, where it is one: from what, to what.
    #[must_use]
    pub fn change<V: Into<Value>>(self, key: &str, from: V, to: V) -> Self {
        let (from, to) = (from.into(), to.into());
        if from == to { self } else { self.detail(key, json!({ "from": from, "to": to })) }
    }

    /// The detail alone.
    #[cfg(test)]
    pub fn into_detail(self) -> Map<String, Value> {
        self.detail
    }

    fn omit(mut self, key: &str, how_much: &Value) -> Self {
        let omitted = self.detail.entry(OMITTED).or_insert_with(|| Value::Object(Map::new()));
        if let Some(omitted) = omitted.as_object_mut() {
            omitted.insert(key.to_owned(), how_much.clone());
        }
        self
    }
}

/// The bytes of a value as JSON.
fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// The bytes of a key as JSON, with what stands around it.
fn entry_size(key: &str) -> usize {
    key.len() + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(event: &Event) -> usize {
        size(&Value::Object(event.detail.clone()))
    }

    /// N09
    #[test]
    fn a_detail_is_bounded_and_says_what_it_leaves_out() {
        let long = |n: usize| format!("{n:0>1000}");
        let event = Event::new(EventKind::RoleUpdated)
            .list("added", (0..50).map(long))
            .list("removed", (0..50).map(long))
            .detail("scope", "x".repeat(5000))
            .detail("name", "ops");
        assert!(bytes(&event) <= DETAIL_BYTES, "{}", bytes(&event));
        assert_eq!(event.detail["added"].as_array().map(Vec::len), Some(10));
        assert_eq!(event.detail["removed"].as_array().map(Vec::len), Some(5));
        let omitted = json!({ "added": { "items": 40 }, "removed": { "items": 45 }, "scope": { "bytes": 5002 } });
        assert_eq!(event.detail[OMITTED], omitted);
        assert_eq!(event.detail["name"], "ops");
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        let event = Event::new(EventKind::RoleUpdated)
            .list("added", Vec::<String>::new())
            .maybe("scope", None::<String>)
            .change("name", "ops", "ops");
        assert!(event.detail.is_empty());
        let event = event.change("name", "ops", "dev");
        assert_eq!(event.detail["name"], json!({ "from": "ops", "to": "dev" }));
    }
}
