//! `AssignRole` and `UnassignRole`.

use prost_types::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Roles,
    assignments::{self, AssignmentRow, AssignmentSelector, NewAssignment},
    audited,
    last_admin::AdminGuard,
    store,
};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    clock,
    db::TenantTx,
    error::{Error, Result},
    gate::{Caller, RoleGrant, WriteCaller},
    ids::{AssignmentId, RoleId, SubjectId, TenantId},
    permissions::{Scope, scope},
    proto::v1::{AssignRoleRequest, AssignRoleResponse},
};

impl Roles {
    pub(super) async fn assign(
        &self,
        write_caller: &WriteCaller,
        message: AssignRoleRequest,
    ) -> Result<AssignRoleResponse> {
        let tenant = write_caller.tenant();
        let key = Key {
            tenant,
            actor: Some(write_caller.user()),
            method: "AssignRole",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let assignment = RequestedAssignment {
            user: SubjectId::parse("user_id", &message.user_id)?,
            role: RoleId::parse("role_id", &message.role_id)?,
            scope: scope::parse_assigned(message.scope.as_ref()).and_then(scope::check_size)?,
            expires_at: message.expire_time.as_ref().map(parse_expiry).transpose()?,
        };
        let user = assignment.user;
        let tx = self.db.begin(tenant).await?;
        idempotency::once(tx, &key, async |tx| {
            let (caller, row) = assign(tx, write_caller, assignment).await?;
            let event = Event::new(EventKind::RoleAssigned).target(user.0);
            let event = audited::with_assignment(event, &row);
            let assignment_id = row.assignment_id.0;
            let consistency_token = audit::record_with_token(tx, &caller.actor(), event).await?;
            let role_assignment = Some(row.into());
            Ok((assignment_id, AssignRoleResponse { role_assignment, consistency_token }))
        })
        .await
    }

    /// Removes one or all assignments of a role from a subject. Returns the consistency token.
    ///
    /// # Errors
    /// Returns `NOT_FOUND` when there is no such assignment, `PERMISSION_DENIED` when the caller
    /// does not cover the subject (`power/rule.rs`), and `FAILED_PRECONDITION` when the tenant
    /// would lose its last administrator.
    pub(super) async fn unassign(
        &self,
        write_caller: &WriteCaller,
        user: SubjectId,
        role: RoleId,
        selector: &AssignmentSelector,
    ) -> Result<String> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::lock_and_count(&mut tx, tenant).await?;
        let role_row = store::get(&mut tx, tenant, role).await?;
        let caller = write_caller.authorize_take(&mut tx, user).await?;
        let deleted_rows = assignments::delete(&mut tx, tenant, user, role, selector).await?;
        if deleted_rows.is_empty() {
            return Err(Error::not_found());
        }
        admins.check_after_change(&mut tx).await?;
        let event = Event::new(EventKind::RoleUnassigned).target(user.0);
        let event = audited::with_removed_assignments(event, &role_row, &deleted_rows);
        audit::finish(tx, &caller.actor(), event).await
    }
}

fn parse_expiry(at: &Timestamp) -> Result<OffsetDateTime> {
    clock::future_time_from_timestamp(at)
        .ok_or_else(|| Error::field("expire_time", "must be a time in the future"))
}

/// The assignment that a request asks for.
pub(super) struct RequestedAssignment {
    pub(super) user: SubjectId,
    pub(super) role: RoleId,
    pub(super) scope: Option<Scope>,
    pub(super) expires_at: Option<OffsetDateTime>,
}

/// Assigns a role to a user or service account.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant does not have the subject or the role, `PERMISSION_DENIED`
/// when the caller may not give the role, `ALREADY_EXISTS` when the subject has the role with this
/// scope, and `LIMIT_REACHED` when the subject has the maximum number of assignments or bytes of
/// scopes.
async fn assign<'a>(
    tx: &mut TenantTx,
    write_caller: &'a WriteCaller,
    assignment: RequestedAssignment,
) -> Result<(&'a Caller, AssignmentRow)> {
    let tenant = write_caller.tenant();
    let role = store::lock(tx, tenant, assignment.role).await?;
    let expiry = assignment.expires_at.into();
    let caller =
        write_caller.authorize_give(tx, assignment.user, RoleGrant::from(&role), expiry).await?;
    let new_assignment = NewAssignment {
        id: AssignmentId::new(),
        user: assignment.user,
        role: assignment.role,
        scope: assignment.scope.map(Value::Object),
        expires_at: assignment.expires_at,
    };
    let computed_columns = assignments::insert(tx, tenant, &new_assignment).await?;
    Ok((caller, new_assignment.row(tenant, role.name, computed_columns)))
}

/// Assigns a role to a new user, without a scope and without an expiry. Returns the assignment.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn assign_new(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    role: RoleId,
) -> Result<AssignmentRow> {
    let role_row = store::get(tx, tenant, role).await?;
    let new_assignment =
        NewAssignment { id: AssignmentId::new(), user, role, scope: None, expires_at: None };
    let computed_columns = assignments::insert(tx, tenant, &new_assignment).await?;
    Ok(new_assignment.row(tenant, role_row.name, computed_columns))
}
