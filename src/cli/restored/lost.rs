//! Finds the acts that the restore undid: the events that are in an export of the audit trail but
//! not in the restored database. Some acts took away a right, an account or a credential. These
//! acts must be done again.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::Context;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use super::store;
use crate::{
    audit::{EventKind, export::Export},
    concurrency::step::bounded,
    db::Db,
    ids::TenantId,
};

/// Maximum number of events that one statement looks for.
const BATCH: usize = 500;

/// A line of `tenantry audit export`. The names of `WatchEvents` in JSON are accepted too.
#[derive(Deserialize)]
pub(super) struct ExportedEvent {
    #[serde(alias = "tenantId")]
    pub(super) tenant_id: Uuid,
    #[serde(alias = "id")]
    event_id: Uuid,
    pub(super) kind: String,
    #[serde(alias = "targetId")]
    pub(super) target_id: Option<String>,
    #[serde(default)]
    pub(super) detail: Value,
    #[serde(alias = "createTime")]
    pub(super) create_time: String,
    /// The position in the trail; 0 when the export does not have it.
    #[serde(default, deserialize_with = "read_position")]
    position: i64,
}

/// Reads a position: a number, or a text in the JSON of `WatchEvents`.
fn read_position<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = value.as_str().and_then(|text| text.parse().ok());
    Ok(value.as_i64().or(text).unwrap_or_default())
}

/// The events of an export that the restored trails lack.
#[derive(Default)]
pub(super) struct LostEvents {
    pub(super) count: u64,
    /// The events of acts that must be done again, each with a text that says what to do.
    pub(super) taken: Vec<(ExportedEvent, &'static str)>,
}

/// Reads the export, and looks for each of its events in the restored trails.
///
/// # Errors
/// When the file can't be read or has another format, or when Postgres is unavailable.
pub(super) async fn find(db: &Db, path: &Path, keep_api_keys: bool) -> anyhow::Result<LostEvents> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("can't read {name}"))?;
    let (mut lost, mut batch) = (LostEvents::default(), Vec::<ExportedEvent>::new());
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("can't read {name}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let not_an_event = || format!("line {} of {name} is not an exported event", index + 1);
        let value: Value = serde_json::from_str(&line).with_context(not_an_event)?;
        // The line of a trail's checkpoint is not an event.
        if value.get("checkpoint").is_some() {
            continue;
        }
        let event: ExportedEvent = serde_json::from_value(value).with_context(not_an_event)?;
        // A batch contains events of only one tenant.
        let is_full = batch.len() >= BATCH;
        if is_full || batch.last().is_some_and(|last| last.tenant_id != event.tenant_id) {
            lost.add(db, std::mem::take(&mut batch), keep_api_keys).await?;
        }
        batch.push(event);
    }
    lost.add(db, batch, keep_api_keys).await?;
    Ok(lost)
}

impl LostEvents {
    /// Adds the events that the restored trail of their tenant lacks, except events that the trail
    /// lacks only because their retention was over. All `events` are of one tenant.
    async fn add(
        &mut self,
        db: &Db,
        events: Vec<ExportedEvent>,
        keep_api_keys: bool,
    ) -> anyhow::Result<()> {
        let Some(first) = events.first() else { return Ok(()) };
        let tenant = TenantId(first.tenant_id);
        let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
        let stored_ids = bounded(async {
            let mut tx = db.begin_without_cipher(tenant).await?;
            store::known_events(&mut tx, tenant, &ids).await
        });
        let stored_ids = stored_ids.await?;
        // The events up to the checkpoint were deleted because their retention was over. An event
        // without a position (0) is not in this range.
        let deleted_positions = 1..=Export::new(db, tenant).checkpoint_position().await?;
        let is_lost = |event: &ExportedEvent| {
            !stored_ids.contains(&event.event_id) && !deleted_positions.contains(&event.position)
        };
        for event in events.into_iter().filter(is_lost) {
            self.count += 1;
            let kind = EventKind::ALL.iter().find(|kind| kind.as_str() == event.kind);
            let instruction = kind.and_then(|kind| what_to_do(*kind, &event.detail, keep_api_keys));
            if let Some(instruction) = instruction {
                self.taken.push((event, instruction));
            }
        }
        Ok(())
    }
}

/// Says what an operator or the tenant must do again; `None` for an act that took nothing away, or
/// that ended only sessions, because `tenantry restored` ends all sessions itself.
fn what_to_do(kind: EventKind, detail: &Value, keep_api_keys: bool) -> Option<&'static str> {
    let has = |key: &str| detail.get(key).is_some();
    let fields = detail.get("fields").and_then(Value::as_array);
    let changed_email = fields.is_some_and(|fields| fields.iter().any(|field| field == "email"));
    match kind {
        EventKind::PasswordChanged | EventKind::PasswordReset => {
            Some("the old password is valid again: let the user set a new one")
        }
        EventKind::UserDisabled => Some("disable the user again"),
        EventKind::UserDeleted => Some("delete the user again"),
        EventKind::UserUpdated if changed_email => {
            Some("the old email signs in again: set the new one")
        }
        EventKind::ServiceAccountDeleted => Some("delete the service account again"),
        EventKind::ApiKeyRevoked if keep_api_keys => Some("revoke the API key again"),
        EventKind::RoleUpdated if has("permissions_removed") || has("level") => {
            Some("remove the permissions from the role, and set its level, again")
        }
        EventKind::RoleDeleted => Some("delete the role again"),
        EventKind::RoleUnassigned => Some("remove the assignments again"),
        EventKind::TenantUpdated if has("settings_changed") => Some("set the settings again"),
        EventKind::TenantSuspended => Some("suspend the tenant again"),
        EventKind::TenantDeleted => Some("delete the tenant again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// N39: only acts that took something away are reported.
    #[test]
    fn an_act_that_took_something_must_be_done_again() {
        let must = |kind, detail: Value| what_to_do(kind, &detail, false).is_some();
        assert!(must(EventKind::RoleUnassigned, json!({})));
        assert!(must(EventKind::RoleUpdated, json!({ "permissions_removed": ["a:b"] })));
        assert!(!must(EventKind::RoleUpdated, json!({ "permissions_added": ["a:b"] })));
        assert!(must(EventKind::UserUpdated, json!({ "fields": ["display_name", "email"] })));
        assert!(!must(EventKind::UserUpdated, json!({ "fields": ["display_name"] })));
        assert!(!must(EventKind::RoleAssigned, json!({})));
        // The command itself ends all API keys, unless `keep_api_keys` (the last argument) is set.
        assert!(!must(EventKind::ApiKeyRevoked, json!({})));
        assert!(what_to_do(EventKind::ApiKeyRevoked, &json!({}), true).is_some());
    }
}
