//! The details of audit events about tenants. A tenant may store any data in its settings. The
//! audit trail contains the names of all changed settings, but values only of the settings that the
//! service interprets.

use serde_json::{Map, Value, json};

use super::{settings::KNOWN_KEYS, store::TenantRow};
use crate::{audit::Event, proto::json as proto_json};

/// Adds the tenant's name and slug.
pub(super) fn with_name(event: Event, tenant: &TenantRow) -> Event {
    event.detail("name", tenant.name.as_str()).detail("slug", tenant.slug.as_str())
}

/// Adds all attributes of a new tenant.
pub fn with_tenant(event: Event, tenant: &TenantRow) -> Event {
    with_settings(with_name(event, tenant), &Map::new(), &settings(tenant))
}

/// Adds the changes of a tenant.
pub(super) fn with_changes(event: Event, before: &TenantRow, after: &TenantRow) -> Event {
    let event = event.change("name", before.name.as_str(), after.name.as_str()).change(
        "slug",
        before.slug.as_str(),
        after.slug.as_str(),
    );
    with_settings(event, &settings(before), &settings(after))
}

/// A tenant's settings; empty when the settings can't be read.
fn settings(tenant: &TenantRow) -> Map<String, Value> {
    proto_json::read(&tenant.settings).unwrap_or_default()
}

fn with_settings(event: Event, before: &Map<String, Value>, after: &Map<String, Value>) -> Event {
    let is_changed = |key: &&String| before.get(*key) != after.get(*key);
    let mut keys: Vec<_> = before.keys().chain(after.keys()).filter(is_changed).collect();
    keys.sort_unstable();
    keys.dedup();
    let known_keys = keys.iter().filter(|key| KNOWN_KEYS.contains(&key.as_str()));
    let values: Map<_, _> = known_keys
        .map(|&key| (key.clone(), json!({ "from": before.get(key), "to": after.get(key) })))
        .collect();
    event
        .optional_detail("settings", (!values.is_empty()).then_some(values))
        .list("settings_changed", keys.into_iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EventKind;

    /// N09: the audit trail contains the names of all changed settings, but not a tenant's own
    /// data.
    #[test]
    fn an_event_contains_values_only_of_known_settings() {
        let event = Event::new(EventKind::TenantUpdated);
        let before = json!({ "note": "secret", "theme": 1, "self_registration": true });
        let after = json!({ "note": "other", "theme": 1, "password_min_length": 12 });
        let object = |value: &Value| value.as_object().cloned().expect("the value is an object");
        let detail = with_settings(event, &object(&before), &object(&after)).into_detail();
        let expected = json!({
            "settings": {
                "password_min_length": { "from": null, "to": 12 },
                "self_registration": { "from": true, "to": null },
            },
            "settings_changed": ["note", "password_min_length", "self_registration"],
        });
        assert_eq!(Value::Object(detail), expected);
    }
}
