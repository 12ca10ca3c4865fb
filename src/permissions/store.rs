//! SQL that reads the data that decisions depend on.
//!
//! - Rule: `subject_standings` (`migrations/0015_decide_permissions.sql`) decides which
//!   assignments, sessions and API keys are in force.
//! - Rule: `explained_standing` (`migrations/0016_explain_permission.sql`) decides the same for
//!   explanations, and which roles an explanation suggests.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use tokio::{task, time};
use uuid::Uuid;

use super::{
    Scope,
    compiled::{PermissionSet, Shared},
    scope,
    standing::{Grant, Role, Standing, Tenant, UserStanding},
};
use crate::{
    concurrency::fair_permits::FairPermits,
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    pg::Observed,
    tenants::TenantState,
    users::UserState,
};

/// Timeout of one query. After this time, the query fails as if Postgres were unavailable.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum size of JSON that is decoded on the thread that serves the call, in bytes. Decoding this
/// much takes a fraction of a millisecond. Larger results are decoded on a thread that serves no
/// calls.
const MAX_INLINE_BYTES: usize = 64 * 1024;

/// Permits to decode large results concurrently, at most one for each tenant. Further calls wait
/// for a permit until their deadline.
static LONG_READS: LazyLock<Arc<FairPermits>> = LazyLock::new(|| FairPermits::new(2));

/// The standings of several subjects of one tenant, read in one snapshot.
pub struct Subjects {
    /// The standings, in the order of the requested subjects.
    pub standings: Vec<Standing>,
    /// Whether the given session belongs to one of the subjects and is live. False when no session
    /// was given.
    pub session_live: bool,
    /// The upper bound (`xmax`) of the read's snapshot: every transaction that the read has seen
    /// has a lower id.
    pub xmax: u64,
}

#[derive(Debug, Deserialize)]
struct RoleRow {
    role_id: Uuid,
    name: String,
    level: i32,
    permissions: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct SubjectRow {
    user_id: Uuid,
    state: UserState,
    grants: Vec<GrantRow>,
}

#[derive(Debug, Deserialize)]
struct GrantRow {
    assignment_id: Uuid,
    role_id: Uuid,
    scope: Option<Box<RawValue>>,
    expires_at: Option<i64>,
}

/// Reads the standings of several subjects in one round trip. `users` has each subject only once.
/// Returns `None` when the tenant does not exist.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn standings(
    db: &Db,
    tenant_id: TenantId,
    users: &[UserId],
    session: Option<SessionId>,
) -> Result<Option<Subjects>> {
    read(db.statement_in_share(tenant_id).await?, tenant_id, users, session).await
}

/// Reads the standing of a subject as the transaction `tx` sees it, and whether the given session
/// belongs to the subject and is live. Returns `None` when the tenant does not exist.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn standing_in_transaction(
    tx: &mut TenantTx,
    tenant: TenantId,
    subject: UserId,
    session: Option<SessionId>,
) -> Result<Option<(Standing, bool)>> {
    let Some(mut read) = read(tx.conn(), tenant, &[subject], session).await? else {
        return Ok(None);
    };
    Ok(read.standings.pop().map(|standing| (standing, read.session_live)))
}

async fn read(
    postgres: Observed<'_>,
    tenant_id: TenantId,
    users: &[UserId],
    session: Option<SessionId>,
) -> Result<Option<Subjects>> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let row = sqlx::query!(
        r#"
        select tenant_slug as "tenant_slug!", tenant_state as "tenant_state!: TenantState",
               is_platform as "is_platform!", api_key_bearer as "takes_api_keys!", session_live,
               snapshot_xmax::text::bigint as "xmax!",
               roles::text as "roles!", subjects::text as "subjects!"
        from subject_standings($1, $2, $3)
        "#,
        tenant_id.0,
        &ids,
        session.map(|id| id.0),
    )
    .fetch_optional(postgres);
    let Some(row) = with_timeout(row).await? else { return Ok(None) };
    let shared = Arc::new(Shared::new(Tenant {
        slug: row.tenant_slug,
        active: row.tenant_state == TenantState::Active,
        is_platform: row.is_platform,
        takes_api_keys: row.takes_api_keys,
    }));
    let size = row.roles.len() + row.subjects.len();
    let decode = move || decode(&ids, tenant_id, &shared, &row.roles, &row.subjects);
    let standings = if size > MAX_INLINE_BYTES {
        on_blocking_thread(tenant_id, decode).await?
    } else {
        decode()?
    };
    let session_live = row.session_live == Some(true);
    Ok(Some(Subjects { standings, session_live, xmax: row.xmax.cast_unsigned() }))
}

/// Runs `work` on a thread that serves no calls.
async fn on_blocking_thread<T: Send + 'static>(
    tenant: TenantId,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = LONG_READS.acquire(tenant).await;
    // The work holds the permit, because the work continues when the client cancels the call.
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    task::spawn_blocking(work)
        .await
        .map_err(|_| Error::defect("the decoding of a read did not finish"))?
}

/// Decodes standings from the JSON of roles and subjects.
fn decode(
    ids: &[Uuid],
    tenant_id: TenantId,
    tenant: &Arc<Shared<Tenant>>,
    roles: &str,
    subjects: &str,
) -> Result<Vec<Standing>> {
    let roles: Vec<RoleRow> = parse(roles)?;
    let subjects: Vec<SubjectRow> = parse(subjects)?;
    let roles = roles.into_iter().map(|role| (role.role_id, role.into())).collect();
    let mut rows_by_id: HashMap<Uuid, SubjectRow> =
        subjects.into_iter().map(|subject| (subject.user_id, subject)).collect();
    ids.iter()
        .map(|id| standing(tenant_id, tenant.clone(), rows_by_id.remove(id), &roles))
        .collect()
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

fn standing(
    tenant_id: TenantId,
    tenant: Arc<Shared<Tenant>>,
    row: Option<SubjectRow>,
    roles: &HashMap<Uuid, Arc<Shared<Role>>>,
) -> Result<Standing> {
    let user = user_standing(row.as_ref().map(|subject| subject.state));
    let grants = row.map(|subject| subject.grants).unwrap_or_default();
    // The vector gets its exact capacity, because it stays in the cache.
    let mut valid_grants = Vec::with_capacity(grants.len());
    for row in grants {
        let scope = scope::kept(row.scope.as_deref(), tenant_id, row.assignment_id);
        let Ok(scope) = scope else { continue };
        let role = roles.get(&row.role_id).cloned();
        let role = role.ok_or_else(|| Error::defect("an assignment without its role"))?;
        valid_grants.push(Grant::new(role, scope, row.expires_at));
    }
    Ok(Standing { tenant, user, grants: valid_grants.into(), weight: 0 })
}

impl From<RoleRow> for Arc<Shared<Role>> {
    fn from(row: RoleRow) -> Self {
        Arc::new(Shared::new(Role {
            id: row.role_id,
            name: row.name,
            level: row.level,
            permissions: PermissionSet::compile(row.permissions),
        }))
    }
}

fn user_standing(state: Option<UserState>) -> UserStanding {
    match state {
        None => UserStanding::Unknown,
        Some(UserState::Active) => UserStanding::Active,
        Some(UserState::Disabled) => UserStanding::Disabled,
    }
}

/// The rows that explain a decision about one subject.
pub struct Explained {
    /// False when the tenant is suspended.
    pub tenant_active: bool,
    /// Whether the subject exists in the tenant and is active.
    pub user: UserStanding,
    /// Whether the given session belongs to the subject and is live. False when no session was
    /// given.
    pub session_live: bool,
    /// The subject's assignments, including expired ones, whose role has the permission. The
    /// scopes are not parsed yet.
    pub assignments: Vec<AssignmentRow<Option<Box<RawValue>>>>,
    /// Roles that have the permission and that are not assigned to the subject, not even in an
    /// expired assignment. The lowest level comes first.
    pub missing_roles: Vec<MissingRoleRow>,
    /// The upper bound (`xmax`) of the read's snapshot: every transaction that the read has seen
    /// has a lower id.
    pub xmax: u64,
}

/// An assignment whose role has the requested permission. `S` is the type of its scope: raw JSON
/// or a parsed scope.
#[derive(Debug, Deserialize)]
pub struct AssignmentRow<S = Option<Scope>> {
    /// The id of the assignment.
    pub assignment_id: Uuid,
    /// The id of its role.
    pub role_id: Uuid,
    /// The name of the role.
    pub role_name: String,
    /// The level of the role.
    pub level: i32,
    /// The most specific permission of the role that covers the requested permission.
    pub permission: String,
    /// The assignment's scope; `None` applies everywhere.
    pub scope: S,
    /// The expiry of the assignment, in seconds since 1970; `None` means never.
    pub expires_at: Option<i64>,
}

impl AssignmentRow<Option<Box<RawValue>>> {
    /// Parses the scope. Returns `None` when the scope can't be read.
    pub fn read(self, tenant: TenantId) -> Option<AssignmentRow> {
        let scope = scope::kept(self.scope.as_deref(), tenant, self.assignment_id).ok()?;
        let Self { assignment_id, role_id, role_name, level, permission, expires_at, .. } = self;
        Some(AssignmentRow {
            assignment_id,
            role_id,
            role_name,
            level,
            permission,
            scope,
            expires_at,
        })
    }
}

/// A role that has the requested permission and that is not assigned to the subject.
#[derive(Debug, Deserialize)]
pub struct MissingRoleRow {
    /// The id of the role.
    pub role_id: Uuid,
    /// The name of the role.
    pub role_name: String,
    /// The level of the role.
    pub level: i32,
    /// The most specific permission of the role that covers the requested permission.
    pub permission: String,
}

/// Reads the rows that explain a decision, in one round trip. Returns `None` when the tenant does
/// not exist. `forms` has all permissions that cover the requested permission. `max_roles` is the
/// maximum number of missing roles.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn explained(
    db: &Db,
    tenant: TenantId,
    user: UserId,
    session: Option<SessionId>,
    forms: &[String],
    max_roles: i64,
) -> Result<Option<Explained>> {
    let row = sqlx::query!(
        r#"
        select tenant_state as "tenant_state!: TenantState",
               user_state as "user_state: UserState", session_live,
               snapshot_xmax::text::bigint as "xmax!",
               assignments as "assignments!: Json<Vec<AssignmentRow<Option<Box<RawValue>>>>>",
               missing_roles as "missing_roles!: Json<Vec<MissingRoleRow>>"
        from explained_standing($1, $2, $3, $4, $5)
        "#,
        tenant.0,
        user.0,
        session.map(|id| id.0),
        forms,
        max_roles,
    )
    .fetch_optional(db.statement_in_share(tenant).await?);
    let Some(row) = with_timeout(row).await? else { return Ok(None) };
    Ok(Some(Explained {
        tenant_active: row.tenant_state == TenantState::Active,
        user: user_standing(row.user_state),
        session_live: row.session_live == Some(true),
        assignments: row.assignments.0,
        missing_roles: row.missing_roles.0,
        xmax: row.xmax.cast_unsigned(),
    }))
}

/// Runs a query with a timeout. A query that times out fails as if Postgres were unavailable.
async fn with_timeout<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    Ok(time::timeout(QUERY_TIMEOUT, query).await.map_err(|_| sqlx::Error::PoolTimedOut)??)
}
