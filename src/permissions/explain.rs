//! Explanations of decisions. The decision is made from the rows of the explanation, so decision
//! and explanation never disagree.

use std::{cmp::Reverse, sync::Arc};

use super::{
    Permission, Permissions, Scope, Standing,
    compiled::{Invalidatable, PermissionSet},
    decide::decide,
    scope,
    standing::{Grant, Role, Tenant, UserStanding},
    store::{self, AssignmentRow, ExplanationRows, MissingRoleRow},
};
use crate::{
    clock,
    concurrency::pace::Pace,
    error::Result,
    gate::Caller,
    ids::{SessionId, SubjectId, TenantId},
    proto::{
        json,
        v1::{
            DecisionReason, ExplainedAssignment, Explanation, MissingRole, ScopeMismatch,
            SubjectState,
        },
    },
};

/// Maximum number of near misses (assignments that do not apply, and roles that are not assigned)
/// of each kind in an explanation.
const MAX_NEAR_MISSES: usize = 10;

/// The permission that a caller needs to see roles that are not assigned to the subject.
const ROLE_READ_PERMISSION: &str = "role:read";

impl Permissions {
    /// Decides, and explains the decision. If `session` is given and is not live, returns
    /// `TokenInvalid` without an explanation, so that the caller learns nothing about the subject
    /// of an invalid token. Returns `NotGranted` without an explanation when the tenant does not
    /// exist.
    pub(super) async fn decide_and_explain(
        &self,
        caller: &Caller,
        subject: SubjectId,
        session: Option<SessionId>,
        permission: &Permission<'_>,
        requested: &Scope,
    ) -> Result<(DecisionReason, Option<Explanation>)> {
        // The tenant's roles are not data of the subject, so they need a separate permission. Only
        // requests with `explain` show these roles, so the method's policy can't require this
        // permission.
        let max_roles =
            if caller.standing().holds(ROLE_READ_PERMISSION) { MAX_NEAR_MISSES } else { 0 };
        let max_roles = i64::try_from(max_roles).unwrap_or_default();
        let tenant = caller.tenant();
        let covering_permissions = permission.covering_permissions();
        let rows = store::explanation_rows(
            &self.db,
            tenant,
            subject,
            session,
            &covering_permissions,
            max_roles,
        )
        .await?;
        let Some(rows) = rows else { return Ok((DecisionReason::NotGranted, None)) };
        self.engine.feed.record_snapshot(rows.snapshot).await?;
        if session.is_some() && !rows.session_live {
            return Ok((DecisionReason::TokenInvalid, None));
        }
        let (reason, explanation) = decide_from_rows(rows, tenant, permission, requested).await;
        Ok((reason, Some(explanation)))
    }
}

/// Decides from the rows, and explains the decision with the same rows.
async fn decide_from_rows(
    rows: ExplanationRows,
    tenant: TenantId,
    permission: &Permission<'_>,
    requested: &Scope,
) -> (DecisionReason, Explanation) {
    let subject_state = subject_state(&rows).into();
    // Read the clock once: all assignments are compared with the same time.
    let now = clock::now().unix_timestamp();
    let (tenant_active, user_standing) = (rows.tenant_active, rows.user);
    let mut grouped = GroupedAssignments::default();
    let mut pace = Pace::new();
    for row in rows.assignments {
        grouped.add(row.parse_scope(tenant), now, requested);
        pace.pause().await;
    }
    // One assignment is enough for the decision: an assignment that applies, or else an assignment
    // whose scope does not match.
    let out_of_scope = grouped.out_of_scope.first().map(|(_, row)| row);
    let deciding_assignment = grouped.applying.as_ref().or(out_of_scope);
    let standing = standing_for_decision(tenant_active, user_standing, deciding_assignment);
    let reason = decide(Some(&standing), permission, requested);
    if reason == DecisionReason::Granted {
        let granted_by = grouped.applying.map(to_explained_assignment);
        return (reason, Explanation { subject_state, granted_by, ..Explanation::default() });
    }
    let out_of_scope = near_misses(grouped.out_of_scope, |(mismatches, _)| *mismatches);
    let out_of_scope = out_of_scope.map(|(_, row)| with_mismatches(row, requested)).collect();
    let expired = near_misses(grouped.expired, |row| Reverse(row.expires_at));
    let expired = expired.map(to_explained_assignment).collect();
    let missing_roles = rows.missing_roles.into_iter().map(to_missing_role).collect();
    let explanation =
        Explanation { subject_state, granted_by: None, out_of_scope, expired, missing_roles };
    (reason, explanation)
}

/// The subject's assignments whose role has the requested permission, grouped by their effect on
/// the request.
#[derive(Default)]
struct GroupedAssignments {
    /// The first assignment in force that applies.
    applying: Option<AssignmentRow>,
    /// Assignments in force whose scope does not match, each with the number of keys that do not
    /// match.
    out_of_scope: Vec<(usize, AssignmentRow)>,
    /// Expired assignments.
    expired: Vec<AssignmentRow>,
}

impl GroupedAssignments {
    /// Adds an assignment to its group. `row` is `None` when the scope can't be parsed. Then the
    /// assignment does not apply and is in no group.
    fn add(&mut self, row: Option<AssignmentRow>, now: i64, requested: &Scope) {
        let Some(row) = row else { return };
        if row.expires_at.is_some_and(|expiry| expiry <= now) {
            self.expired.push(row);
            return;
        }
        match scope::mismatches(row.scope.as_ref(), requested).count() {
            0 if self.applying.is_none() => self.applying = Some(row),
            0 => {}
            mismatches => self.out_of_scope.push((mismatches, row)),
        }
    }
}

/// Sorts the rows, nearest first (smallest key), and keeps at most [`MAX_NEAR_MISSES`].
fn near_misses<T, K: Ord>(mut rows: Vec<T>, key: impl FnMut(&T) -> K) -> impl Iterator<Item = T> {
    rows.sort_by_key(key);
    rows.into_iter().take(MAX_NEAR_MISSES)
}

fn subject_state(rows: &ExplanationRows) -> SubjectState {
    match rows.user {
        _ if !rows.tenant_active => SubjectState::TenantSuspended,
        UserStanding::Unknown => SubjectState::Unknown,
        UserStanding::Disabled => SubjectState::Disabled,
        UserStanding::Active => SubjectState::Active,
    }
}

/// Builds a standing that contains only the deciding assignment. The fields that [`decide`] does
/// not read have dummy values.
fn standing_for_decision(
    tenant_active: bool,
    user: UserStanding,
    assignment: Option<&AssignmentRow>,
) -> Standing {
    let grants = assignment.into_iter().map(|row| {
        let role = Role {
            id: row.role_id,
            name: row.role_name.clone(),
            level: row.level,
            permissions: PermissionSet::compile(vec![row.permission.clone()]),
        };
        Grant::new(Arc::new(Invalidatable::new(role)), row.scope.clone(), None)
    });
    let tenant = Tenant {
        slug: String::new(),
        active: tenant_active,
        is_platform: false,
        accepts_api_key_bearer: false,
    };
    Standing {
        tenant: Arc::new(Invalidatable::new(tenant)),
        user,
        grants: grants.collect(),
        weight: 0,
    }
}

fn to_explained_assignment(row: AssignmentRow) -> ExplainedAssignment {
    ExplainedAssignment {
        assignment_id: row.assignment_id.to_string(),
        role_id: row.role_id.to_string(),
        role_name: row.role_name,
        permission: row.permission,
        scope: row.scope.as_ref().map(json::to_struct),
        expire_time: row.expires_at.map(clock::timestamp_from_seconds),
        mismatches: Vec::new(),
    }
}

fn with_mismatches(row: AssignmentRow, requested: &Scope) -> ExplainedAssignment {
    let mismatches =
        scope::mismatches(row.scope.as_ref(), requested).map(|(key, assigned)| ScopeMismatch {
            key: key.clone(),
            assigned: Some(json::to_value(assigned)),
            requested: requested.get(key).map(json::to_value),
        });
    let mismatches = mismatches.collect();
    ExplainedAssignment { mismatches, ..to_explained_assignment(row) }
}

fn to_missing_role(row: MissingRoleRow) -> MissingRole {
    MissingRole {
        role_id: row.role_id.to_string(),
        role_name: row.role_name,
        level: row.level,
        permission: row.permission,
    }
}
