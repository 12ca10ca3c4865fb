//! The details of audit events about roles and role assignments.

use serde_json::Value;

use super::{assignments::AssignmentRow, store::RoleRow};
use crate::{
    audit::Event,
    clock,
    proto::{json, v1::RoleLevel},
};

/// Adds all attributes of a created or deleted role.
pub(super) fn with_role(event: Event, role: &RoleRow) -> Event {
    event
        .detail("name", role.name.as_str())
        .detail("level", level(role.level))
        .detail("system", role.is_system)
        .list("permissions", role.permissions.iter().map(String::as_str))
}

/// Adds the changes of a role.
pub(super) fn with_role_changes(event: Event, before: &RoleRow, after: &RoleRow) -> Event {
    let difference = |role: &RoleRow, other: &RoleRow| {
        let is_missing = |permission: &&String| !other.permissions.contains(permission);
        role.permissions.iter().filter(is_missing).cloned().collect::<Vec<_>>()
    };
    event
        .detail("role_name", after.name.as_str())
        .change("name", before.name.as_str(), after.name.as_str())
        .change("level", level(before.level), level(after.level))
        .list("permissions_added", difference(after, before))
        .list("permissions_removed", difference(before, after))
}

/// Adds the attributes of a new assignment.
pub fn with_assignment(event: Event, row: &AssignmentRow) -> Event {
    event
        .detail("role_id", row.role_id.to_string())
        .detail("role_name", row.role_name.as_str())
        .detail("assignment_id", row.assignment_id.to_string())
        .optional_detail("expire_time", row.expires_at.map(clock::rfc3339))
        .optional_detail("scope", scope(row))
}

/// Adds the assignments of one role that were removed.
pub(super) fn with_removed_assignments(
    event: Event,
    role: &RoleRow,
    rows: &[AssignmentRow],
) -> Event {
    let event =
        event.detail("role_id", role.role_id.to_string()).detail("role_name", role.name.as_str());
    // The event itself has the role, so the entries omit it.
    event.list("assignments", rows.iter().map(|row| entry(row, false)))
}

/// Adds the assignments that were deleted with their user or service account.
pub fn with_deleted_assignments(event: Event, rows: &[AssignmentRow]) -> Event {
    // The assignments may be of several roles, so each entry has its role.
    event.list("assignments", rows.iter().map(|row| entry(row, true)))
}

/// An assignment as a JSON object in a list. Unset values are omitted.
fn entry(row: &AssignmentRow, includes_role: bool) -> Value {
    let mut entry = serde_json::json!({ "assignment_id": row.assignment_id.to_string() });
    let role = includes_role.then(|| (row.role_id.to_string(), row.role_name.clone()));
    let (role_id, role_name) = role.unzip();
    let optional_values = [
        ("role_id", role_id.map(Value::from)),
        ("role_name", role_name.map(Value::from)),
        ("scope", scope(row)),
        ("expire_time", row.expires_at.map(|at| clock::rfc3339(at).into())),
    ];
    for (key, value) in optional_values {
        if let Some(value) = value {
            entry[key] = value;
        }
    }
    entry
}

/// An assignment's scope; `None` when it is unset or can't be read.
fn scope(row: &AssignmentRow) -> Option<Value> {
    json::read(row.scope.as_ref()?).map(Value::Object)
}

fn level(level: i16) -> &'static str {
    RoleLevel::try_from(i32::from(level)).unwrap_or_default().as_str_name()
}
