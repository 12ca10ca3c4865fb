//! The content of an audit event.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{EventKind, Origin};
use crate::ids::{SessionId, SubjectId, TenantId};

/// Maximum size of an event's detail, in bytes of JSON. A scope of the maximum size fits.
pub const DETAIL_BYTES: usize = 16 * 1024;

/// Maximum size of one list in a detail, in bytes of JSON.
const LIST_BYTES: usize = 10 * 1024;

/// The part of [`DETAIL_BYTES`] that is reserved for the key [`OMITTED`].
const OMITTED_BYTES: usize = 512;

/// The key in the detail under which the values that did not fit are listed.
const OMITTED: &str = "omitted";

/// The caller in an event. For a call without a token, the ids are `None`.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The caller's own tenant, which may differ from the tenant of the event.
    pub tenant: Option<TenantId>,
    /// The caller's user or service account.
    pub user: Option<SubjectId>,
    /// The caller's session.
    pub session: Option<SessionId>,
    pub origin: Origin,
}

impl Actor {
    /// The sender of a call without a token.
    #[must_use]
    pub fn anonymous(origin: &Origin) -> Self {
        Self { tenant: None, user: None, session: None, origin: origin.clone() }
    }
}

/// An event to record. An event contains ids, names of roles and tenants, and changed values. It
/// never contains personal data, tokens or secrets.
pub struct Event {
    pub(super) kind: EventKind,
    pub(super) target: Option<Uuid>,
    pub(super) detail: Map<String, Value>,
    /// Upper bound of the size of the detail, in bytes of JSON. Includes [`OMITTED_BYTES`].
    bytes: usize,
}

impl Event {
    /// Creates an event without target or detail.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self { kind, target: None, detail: Map::new(), bytes: OMITTED_BYTES }
    }

    /// The event for a call by platform staff in another tenant.
    #[must_use]
    pub fn across_tenants(method: &str) -> Self {
        Self::new(EventKind::ActedAcrossTenants).detail("method", method)
    }

    /// Sets the id of the target of the event, such as a user or a role.
    #[must_use]
    pub fn target(mut self, id: Uuid) -> Self {
        self.target = Some(id);
        self
    }

    /// Adds a value to the detail. If the value does not fit, adds the size of the value in bytes
    /// to `omitted` instead.
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

    /// Adds a value to the detail; `None` adds nothing.
    #[must_use]
    pub fn optional_detail(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.detail(key, value),
            None => self,
        }
    }

    /// Adds a list to the detail, unless the list is empty. The first item that does not fit, and
    /// all items after it, are left out. Their number is added to `omitted`.
    #[must_use]
    pub fn list<V: Into<Value>>(self, key: &str, items: impl IntoIterator<Item = V>) -> Self {
        let limit = (DETAIL_BYTES - self.bytes).saturating_sub(entry_size(key)).min(LIST_BYTES);
        // The brackets of an empty list have 2 bytes. Each item is counted with its comma.
        let (mut listed_items, mut bytes, mut omitted_items) = (Vec::new(), 2, 0_u64);
        for item in items {
            let item = item.into();
            bytes += size(&item) + 1;
            if bytes > limit {
                omitted_items += 1;
            } else {
                listed_items.push(item);
            }
        }
        let event = if listed_items.is_empty() { self } else { self.detail(key, listed_items) };
        if omitted_items == 0 { event } else { event.omit(key, &json!({ "items": omitted_items })) }
    }

    /// Adds a change of a value as `from` and `to`, if the values differ.
    #[must_use]
    pub fn change<V: Into<Value>>(self, key: &str, from: V, to: V) -> Self {
        let (from, to) = (from.into(), to.into());
        if from == to { self } else { self.detail(key, json!({ "from": from, "to": to })) }
    }

    /// Returns the detail.
    #[cfg(test)]
    pub fn into_detail(self) -> Map<String, Value> {
        self.detail
    }

    /// Adds to `omitted` how much of the value of `key` was left out.
    fn omit(mut self, key: &str, amount: &Value) -> Self {
        let omitted = self.detail.entry(OMITTED).or_insert_with(|| Value::Object(Map::new()));
        if let Some(omitted) = omitted.as_object_mut() {
            omitted.insert(key.to_owned(), amount.clone());
        }
        self
    }
}

/// The size of a value, in bytes of JSON.
fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// The size of a key in JSON, in bytes, with quotes, colon and comma.
fn entry_size(key: &str) -> usize {
    key.len() + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail_size(event: &Event) -> usize {
        size(&Value::Object(event.detail.clone()))
    }

    /// N09: the size of a detail is bounded. The key `omitted` lists the values that do not fit.
    #[test]
    fn values_that_exceed_the_size_of_a_detail_are_listed_as_omitted() {
        // A text of 1000 digits. With quotes and a comma, the item has 1003 bytes of JSON.
        let long_item = |n: usize| format!("{n:0>1000}");
        let event = Event::new(EventKind::RoleUpdated)
            .list("added", (0..50).map(long_item))
            .list("removed", (0..50).map(long_item))
            .detail("scope", "x".repeat(5000))
            .detail("name", "ops");
        assert!(detail_size(&event) <= DETAIL_BYTES, "{}", detail_size(&event));
        // Ten items fit into the 10 KiB of a list, then five items into the rest of the 16 KiB.
        assert_eq!(event.detail["added"].as_array().map(Vec::len), Some(10));
        assert_eq!(event.detail["removed"].as_array().map(Vec::len), Some(5));
        // The scope has 5000 bytes and two quotes.
        let omitted = json!({ "added": { "items": 40 }, "removed": { "items": 45 }, "scope": { "bytes": 5002 } });
        assert_eq!(event.detail[OMITTED], omitted);
        assert_eq!(event.detail["name"], "ops");
    }

    #[test]
    fn empty_lists_absent_values_and_equal_values_are_not_in_the_detail() {
        let event = Event::new(EventKind::RoleUpdated)
            .list("added", Vec::<String>::new())
            .optional_detail("scope", None::<String>)
            .change("name", "ops", "ops");
        assert!(event.detail.is_empty());
        let event = event.change("name", "ops", "dev");
        assert_eq!(event.detail["name"], json!({ "from": "ops", "to": "dev" }));
    }
}
