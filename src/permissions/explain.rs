//! Why a decision is as it is. The decision is made of what is read to explain
//! it, so that the two never disagree.

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
    error::Result,
    gate::Caller,
    ids::{SessionId, UserId},
    json,
    proto::v1::{
        DecisionReason, ExplainedAssignment, Explanation, MissingRole, ScopeMismatch, SubjectState,
    },
};

/// How many of each sort of near misses are told.
const MISSES: usize = 10;

/// What a caller must hold to be told of roles that the subject does not have.
const SEES_ROLES: &str = "role:read";

impl Permissions {
    /// Decides, and says why. With a session, only while it is live: nothing is
    /// said of a token that is not in force.
    pub(super) async fn explain(
        &self,
        caller: &Caller,
        user: UserId,
        session: Option<SessionId>,
        permission: &Permission<'_>,
        requested: &Scope,
    ) -> Result<(DecisionReason, Option<Explanation>)> {
        // The tenant's roles are not the subject's own matter, and which are told
        // hangs on this request alone: no method's policy can say it.
        let roles = if caller.standing().holds(SEES_ROLES) { MISSES } else { 0 };
        let roles = i64::try_from(roles).unwrap_or_default();
        let (tenant, forms) = (caller.tenant(), permission.forms());
        let read = store::explained(&self.db, tenant, user, session, &forms, roles).await?;
        let Some(read) = read else { return Ok((DecisionReason::NotGranted, None)) };
        self.engine.feed.saw(read.xmax);
        if session.is_some() && !read.session_live {
            return Ok((DecisionReason::TokenInvalid, None));
        }
        let (reason, explanation) = explain(read, permission, requested);
        Ok((reason, Some(explanation)))
    }
}

fn explain(
    read: Explained,
    permission: &Permission<'_>,
    requested: &Scope,
) -> (DecisionReason, Explanation) {
    let subject_state = state(&read).into();
    // The clock is read here alone: what counts as ended has ended for all of this.
    let now = clock::now().unix_timestamp();
    let (live, mut ended): (Vec<_>, Vec<_>) =
        read.assignments.into_iter().partition(|row| row.expires_at.is_none_or(|end| end > now));
    let standing = standing(read.tenant_active, read.user, &live);
    let reason = decide(Some(&standing), permission, requested);

    let (applying, elsewhere): (Vec<_>, Vec<_>) =
        live.into_iter().partition(|row| scope::applies(row.scope.as_ref(), requested));
    if reason == DecisionReason::Granted {
        let granted_by = applying.into_iter().next().map(assignment);
        return (reason, Explanation { subject_state, granted_by, ..Explanation::default() });
    }
    let mut out_of_scope: Vec<_> =
        elsewhere.into_iter().map(|row| out_of_scope(row, requested)).collect();
    out_of_scope.sort_by_key(|miss| miss.mismatches.len());
    out_of_scope.truncate(MISSES);
    ended.sort_by_key(|row| Reverse(row.expires_at));
    let expired = ended.into_iter().take(MISSES).map(assignment).collect();
    let missing_roles = read.missing_roles.into_iter().map(missing_role).collect();
    let explanation =
        Explanation { subject_state, granted_by: None, out_of_scope, expired, missing_roles };
    (reason, explanation)
}

fn state(read: &Explained) -> SubjectState {
    match read.user {
        _ if !read.tenant_active => SubjectState::TenantSuspended,
        UserStanding::Unknown => SubjectState::Unknown,
        UserStanding::Disabled => SubjectState::Disabled,
        UserStanding::Active => SubjectState::Active,
    }
}

/// As much of a standing as this one decision depends on.
fn standing(tenant_active: bool, user: UserStanding, live: &[AssignmentRow]) -> Standing {
    let grants = live.iter().map(|row| {
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

fn out_of_scope(row: AssignmentRow, requested: &Scope) -> ExplainedAssignment {
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
