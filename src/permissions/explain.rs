//! Explanations of decisions. The decision is made from the same rows that explain it, so the two
//! never disagree.

use std::{cmp::Reverse, sync::Arc};

use super::{
    Permission, Permissions, Scope, Standing,
    compiled::{PermissionSet, Shared},
    decide::decide,
    scope,
    standing::{Grant, Role, Tenant, UserStanding},
    store::{self, AssignmentRow, Explained, MissingRoleRow},
};
use crate::{
    clock,
    concurrency::pace::Pace,
    error::Result,
    gate::Caller,
    ids::{SessionId, TenantId, UserId},
    proto::{
        json,
        v1::{
            DecisionReason, ExplainedAssignment, Explanation, MissingRole, ScopeMismatch,
            SubjectState,
        },
    },
};

/// Maximum number of near misses of each kind in an explanation.
const MAX_NEAR_MISSES: usize = 10;

/// The permission that a caller needs to see roles that the subject does not have.
const ROLE_READ_PERMISSION: &str = "role:read";

impl Permissions {
    /// Decides and explains the decision. If `session` is given and is not live, returns
    /// `TokenInvalid` without an explanation, so that the caller learns nothing about an invalid
    /// token.
    pub(super) async fn explain(
        &self,
        caller: &Caller,
        user: UserId,
        session: Option<SessionId>,
        permission: &Permission<'_>,
        requested: &Scope,
    ) -> Result<(DecisionReason, Option<Explanation>)> {
        // The tenant's roles are not the subject's own data. Only some requests show these roles,
        // so the method's policy can't express the check.
        let max_roles =
            if caller.standing().holds(ROLE_READ_PERMISSION) { MAX_NEAR_MISSES } else { 0 };
        let max_roles = i64::try_from(max_roles).unwrap_or_default();
        let (tenant, forms) = (caller.tenant(), permission.forms());
        let read = store::explained(&self.db, tenant, user, session, &forms, max_roles).await?;
        let Some(read) = read else { return Ok((DecisionReason::NotGranted, None)) };
        self.engine.feed.record_snapshot(read.xmax);
        if session.is_some() && !read.session_live {
            return Ok((DecisionReason::TokenInvalid, None));
        }
        let (reason, explanation) = explain(read, tenant, permission, requested).await;
        Ok((reason, Some(explanation)))
    }
}

async fn explain(
    read: Explained,
    tenant: TenantId,
    permission: &Permission<'_>,
    requested: &Scope,
) -> (DecisionReason, Explanation) {
    let subject_state = state(&read).into();
    // Read the clock once: all assignments are compared with the same time.
    let now = clock::now().unix_timestamp();
    let (tenant_active, user) = (read.tenant_active, read.user);
    let mut grouped = GroupedAssignments::default();
    let mut pace = Pace::new();
    for row in read.assignments {
        grouped.add(row.read(tenant), now, requested);
        pace.pause().await;
    }
    let decisive = grouped.applying.as_ref().or(grouped.out_of_scope.first().map(|(_, row)| row));
    let standing = standing(tenant_active, user, decisive);
    let reason = decide(Some(&standing), permission, requested);
    if reason == DecisionReason::Granted {
        let granted_by = grouped.applying.map(assignment);
        return (reason, Explanation { subject_state, granted_by, ..Explanation::default() });
    }
    let out_of_scope = near_misses(grouped.out_of_scope, |(misses, _)| *misses);
    let out_of_scope = out_of_scope.map(|(_, row)| with_mismatches(row, requested)).collect();
    let expired =
        near_misses(grouped.expired, |row| Reverse(row.expires_at)).map(assignment).collect();
    let missing_roles = read.missing_roles.into_iter().map(missing_role).collect();
    let explanation =
        Explanation { subject_state, granted_by: None, out_of_scope, expired, missing_roles };
    (reason, explanation)
}

/// The subject's assignments whose role has the requested permission, grouped by their effect on
/// the request.
#[derive(Default)]
struct GroupedAssignments {
    /// The first assignment that is in force and applies.
    applying: Option<AssignmentRow>,
    /// Assignments in force whose scope does not match, each with the number of keys that do not
    /// match.
    out_of_scope: Vec<(usize, AssignmentRow)>,
    /// Expired assignments.
    expired: Vec<AssignmentRow>,
}

impl GroupedAssignments {
    /// Adds an assignment to its group. `row` is `None` when the scope can't be read; such an
    /// assignment does not apply.
    fn add(&mut self, row: Option<AssignmentRow>, now: i64, requested: &Scope) {
        let Some(row) = row else { return };
        if row.expires_at.is_some_and(|end| end <= now) {
            self.expired.push(row);
            return;
        }
        match scope::mismatches(row.scope.as_ref(), requested).count() {
            0 if self.applying.is_none() => self.applying = Some(row),
            0 => {}
            misses => self.out_of_scope.push((misses, row)),
        }
    }
}

/// The first [`MAX_NEAR_MISSES`] rows, ordered by a key.
fn near_misses<T, K: Ord>(mut rows: Vec<T>, key: impl FnMut(&T) -> K) -> impl Iterator<Item = T> {
    rows.sort_by_key(key);
    rows.into_iter().take(MAX_NEAR_MISSES)
}

fn state(read: &Explained) -> SubjectState {
    match read.user {
        _ if !read.tenant_active => SubjectState::TenantSuspended,
        UserStanding::Unknown => SubjectState::Unknown,
        UserStanding::Disabled => SubjectState::Disabled,
        UserStanding::Active => SubjectState::Active,
    }
}

/// The part of a standing that the decision depends on.
fn standing(tenant_active: bool, user: UserStanding, applying: Option<&AssignmentRow>) -> Standing {
    let grants = applying.into_iter().map(|row| {
        let role = Role {
            id: row.role_id,
            name: row.role_name.clone(),
            level: row.level,
            permissions: PermissionSet::compile(vec![row.permission.clone()]),
        };
        Grant::new(Arc::new(Shared::new(role)), row.scope.clone(), None)
    });
    let tenant = Tenant {
        slug: String::new(),
        active: tenant_active,
        is_platform: false,
        takes_api_keys: false,
    };
    Standing { tenant: Arc::new(Shared::new(tenant)), user, grants: grants.collect(), weight: 0 }
}

fn assignment(row: AssignmentRow) -> ExplainedAssignment {
    ExplainedAssignment {
        assignment_id: row.assignment_id.to_string(),
        role_id: row.role_id.to_string(),
        role_name: row.role_name,
        permission: row.permission,
        scope: row.scope.as_ref().map(json::to_struct),
        expire_time: row.expires_at.map(clock::timestamp_of),
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
    ExplainedAssignment { mismatches, ..assignment(row) }
}

fn missing_role(row: MissingRoleRow) -> MissingRole {
    MissingRole {
        role_id: row.role_id.to_string(),
        role_name: row.role_name,
        level: row.level,
        permission: row.permission,
    }
}
