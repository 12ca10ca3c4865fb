//! `AssignRole` and `UnassignRole`.

use prost_types::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Roles,
    assignments::{self, AssignmentRow, NewAssignment, Which},
    audited,
    guard::AdminGuard,
    store::{self, RoleRow},
};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    clock,
    db::TenantTx,
    error::{Error, Result},
    gate::{Caller, RoleGrant, WriteCaller},
    ids::{AssignmentId, RoleId, TenantId, UserId},
    permissions::{Scope, scope},
    proto::v1::{AssignRoleRequest, AssignRoleResponse},
};

impl Roles {
    pub(super) async fn assign(
        &self,
        acting: &WriteCaller,
        message: AssignRoleRequest,
    ) -> Result<AssignRoleResponse> {
        let tenant = acting.tenant();
        let key = Key {
            tenant,
            actor: Some(acting.user()),
            method: "AssignRole",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let wanted = Assignment {
            user: UserId::parse("user_id", &message.user_id)?,
            role: RoleId::parse("role_id", &message.role_id)?,
            scope: scope::assigned(message.scope.as_ref()).and_then(scope::storable)?,
            expires_at: message.expire_time.as_ref().map(end).transpose()?,
        };
        let user = wanted.user;
        let mut tx = self.db.begin(tenant).await?;
        if let Some(first) = idempotency::recall(&mut tx, &key).await? {
            return Ok(first);
        }
        let (caller, row) = assign(&mut tx, acting, wanted).await?;
        let event = Event::new(EventKind::RoleAssigned).target(user.0);
        let event = audited::assigned(event, &row);
        let made = row.assignment_id;
        let consistency_token = audit::record_with_token(&mut tx, &caller.actor(), event).await?;
        let response = AssignRoleResponse { role_assignment: Some(row.into()), consistency_token };
        idempotency::remember(&mut tx, &key, made, &response).await?;
        tx.commit().await?;
        Ok(response)
    }
}

fn end(at: &Timestamp) -> Result<OffsetDateTime> {
    clock::in_the_future(at)
        .ok_or_else(|| Error::field("expire_time", "must be a time in the future"))
}

/// An assignment that a caller wants to make.
pub(super) struct Assignment {
    pub(super) user: UserId,
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
    acting: &'a WriteCaller,
    wanted: Assignment,
) -> Result<(&'a Caller, AssignmentRow)> {
    let tenant = acting.tenant();
    let role = store::lock(tx, tenant, wanted.role).await?;
    let end = wanted.expires_at.into();
    let caller = acting.authorize_give(tx, wanted.user, RoleGrant::from(&role), end).await?;
    let new = NewAssignment {
        id: AssignmentId::new(),
        user: wanted.user,
        role: wanted.role,
        scope: wanted.scope.map(Value::Object),
        expires_at: wanted.expires_at,
    };
    let inserted = assignments::insert(tx, tenant, &new).await?;
    Ok((caller, new.row(tenant, role.name, inserted)))
}

/// Removes one or all assignments of a role from a user. Returns the role and the removed
/// assignments.
///
/// # Errors
/// Returns `NOT_FOUND` when there is no such assignment, `PERMISSION_DENIED` when the user holds
/// more than the caller, and `FAILED_PRECONDITION` when the tenant would lose its last
/// administrator.
pub(super) async fn unassign<'a>(
    tx: &mut TenantTx,
    acting: &'a WriteCaller,
    user: UserId,
    role: RoleId,
    which: &Which,
) -> Result<(&'a Caller, RoleRow, Vec<AssignmentRow>)> {
    let tenant = acting.tenant();
    let admins = AdminGuard::watch(tx, tenant).await?;
    let row = store::get(tx, tenant, role).await?;
    let caller = acting.authorize_take(tx, user).await?;
    let taken = assignments::delete(tx, tenant, user, role, which).await?;
    if taken.is_empty() {
        return Err(Error::not_found());
    }
    admins.check(tx).await?;
    Ok((caller, row, taken))
}

/// Assigns a role to a new user, without a scope or an end. Returns the assignment.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn assign_new(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    role: RoleId,
) -> Result<AssignmentRow> {
    let row = store::get(tx, tenant, role).await?;
    let new = NewAssignment { id: AssignmentId::new(), user, role, scope: None, expires_at: None };
    let inserted = assignments::insert(tx, tenant, &new).await?;
    Ok(new.row(tenant, row.name, inserted))
}
