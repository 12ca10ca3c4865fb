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
    compiled::{Invalidatable, PermissionSet},
    scope,
    standing::{Grant, Role, Standing, Tenant, UserStanding},
};
use crate::{
    concurrency::fair_permits::FairPermits,
    db::{Db, TenantTx},
    error::{Error, Result},
    feed::Snapshot,
    ids::{SessionId, SubjectId, TenantId},
    pg::InstrumentedExecutor,
    tenants::TenantState,
    users::UserState,
};

/// Timeout of one query. After this time, the query fails as if Postgres were unavailable.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum size of JSON that is decoded on the thread that serves the call, in bytes. Decoding JSON
/// of this size takes a fraction of a millisecond. Larger results are decoded on a thread that
/// serves no calls.
const MAX_INLINE_BYTES: usize = 64 * 1024;

/// Permits for decoding large results concurrently. One tenant gets at most one permit. Further
/// calls wait for a permit until their deadline.
static DECODE_PERMITS: LazyLock<Arc<FairPermits>> = LazyLock::new(|| FairPermits::new(2));

/// The standings of several subjects of one tenant, read in one snapshot.
pub struct StandingsSnapshot {
    /// The standings, in the order of the requested subjects.
    pub standings: Vec<Standing>,
    /// Whether the given session belongs to one of the subjects and is live. False when no session
    /// was given.
    pub session_live: bool,
    /// The upper bound of the read's snapshot.
    pub snapshot: Snapshot,
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
    users: &[SubjectId],
    session: Option<SessionId>,
) -> Result<Option<StandingsSnapshot>> {
    read_standings(db.executor_in_share(tenant_id).await?, tenant_id, users, session).await
}

/// Reads the standing of a subject as the transaction `tx` sees it, and whether the given session
/// belongs to the subject and is live. Returns `None` when the tenant does not exist.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn standing_in_transaction(
    tx: &mut TenantTx,
    tenant: TenantId,
    subject: SubjectId,
    session: Option<SessionId>,
) -> Result<Option<(Standing, bool)>> {
    let snapshot = read_standings(tx.conn(), tenant, &[subject], session).await?;
    let Some(mut snapshot) = snapshot else { return Ok(None) };
    Ok(snapshot.standings.pop().map(|standing| (standing, snapshot.session_live)))
}

async fn read_standings(
    executor: InstrumentedExecutor<'_>,
    tenant_id: TenantId,
    users: &[SubjectId],
    session: Option<SessionId>,
) -> Result<Option<StandingsSnapshot>> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let row = sqlx::query!(
        r#"
        select tenant_slug as "tenant_slug!", tenant_state as "tenant_state!: TenantState",
               is_platform as "is_platform!", api_key_bearer as "takes_api_keys!", session_live,
               snapshot_xmax::text::bigint as "xmax!", (select current_epoch()) as "epoch!",
               roles::text as "roles!", subjects::text as "subjects!"
        from subject_standings($1, $2, $3)
        "#,
        tenant_id.0,
        &ids,
        session.map(|id| id.0),
    )
    .fetch_optional(executor);
    let Some(row) = with_timeout(row).await? else { return Ok(None) };
    let tenant = Arc::new(Invalidatable::new(Tenant {
        slug: row.tenant_slug,
        active: row.tenant_state == TenantState::Active,
        is_platform: row.is_platform,
        accepts_api_key_bearer: row.takes_api_keys,
    }));
    let size = row.roles.len() + row.subjects.len();
    let decode_rows = move || decode(&ids, tenant_id, &tenant, &row.roles, &row.subjects);
    let standings = run_decode(tenant_id, size, decode_rows).await?;
    let session_live = row.session_live == Some(true);
    let snapshot = Snapshot { xmax: row.xmax.cast_unsigned(), epoch: row.epoch.cast_unsigned() };
    Ok(Some(StandingsSnapshot { standings, session_live, snapshot }))
}

/// Decodes a result of `size` bytes; a large result on a thread that serves no calls.
async fn run_decode<T: Send + 'static>(
    tenant: TenantId,
    size: usize,
    decode: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if size <= MAX_INLINE_BYTES {
        return decode();
    }
    let permit = DECODE_PERMITS.acquire(tenant).await;
    // The thread holds the permit, because decoding continues when the client cancels the call.
    let decode_and_release = move || {
        let result = decode();
        drop(permit);
        result
    };
    task::spawn_blocking(decode_and_release)
        .await
        .map_err(|_| Error::defect("the decoding of a read did not finish"))?
}

/// Decodes standings from the JSON of roles and subjects.
fn decode(
    ids: &[Uuid],
    tenant_id: TenantId,
    tenant: &Arc<Invalidatable<Tenant>>,
    roles: &str,
    subjects: &str,
) -> Result<Vec<Standing>> {
    let roles: Vec<RoleRow> = parse_json(roles)?;
    let subjects: Vec<SubjectRow> = parse_json(subjects)?;
    let roles_by_id = roles.into_iter().map(|role| (role.role_id, role.into())).collect();
    let mut rows_by_id: HashMap<Uuid, SubjectRow> =
        subjects.into_iter().map(|subject| (subject.user_id, subject)).collect();
    ids.iter()
        .map(|id| to_standing(tenant_id, tenant.clone(), rows_by_id.remove(id), &roles_by_id))
        .collect()
}

fn parse_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

/// The standing of a subject. Without a row, the subject is unknown. A grant whose scope can't be
/// read is left out.
fn to_standing(
    tenant_id: TenantId,
    tenant: Arc<Invalidatable<Tenant>>,
    row: Option<SubjectRow>,
    roles: &HashMap<Uuid, Arc<Invalidatable<Role>>>,
) -> Result<Standing> {
    let user = user_standing(row.as_ref().map(|subject| subject.state));
    let grants = row.map(|subject| subject.grants).unwrap_or_default();
    let mut valid_grants = Vec::with_capacity(grants.len());
    for grant in grants {
        let scope = scope::from_stored(grant.scope.as_deref(), tenant_id, grant.assignment_id);
        let Ok(scope) = scope else { continue };
        let role = roles.get(&grant.role_id).cloned();
        let role = role.ok_or_else(|| Error::defect("the role of an assignment was not read"))?;
        valid_grants.push(Grant::new(role, scope, grant.expires_at));
    }
    Ok(Standing { tenant, user, grants: valid_grants.into(), weight: 0 })
}

impl From<RoleRow> for Arc<Invalidatable<Role>> {
    fn from(row: RoleRow) -> Self {
        Arc::new(Invalidatable::new(Role {
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
pub struct ExplanationRows {
    /// False when the tenant is suspended.
    pub tenant_active: bool,
    /// Whether the subject exists in the tenant and is active.
    pub user: UserStanding,
    /// Whether the given session belongs to the subject and is live. False when no session was
    /// given.
    pub session_live: bool,
    /// The subject's assignments, including expired ones, whose role has the requested permission.
    /// The scopes are not parsed yet.
    pub assignments: Vec<AssignmentRow<Option<Box<RawValue>>>>,
    /// Roles that have the requested permission and that are not assigned to the subject, not even in an
    /// expired assignment. The lowest level comes first.
    pub missing_roles: Vec<MissingRoleRow>,
    /// The upper bound of the read's snapshot.
    pub snapshot: Snapshot,
}

/// An assignment whose role has the requested permission. `S` is the type of the scope: raw JSON
/// or a parsed scope.
#[derive(Debug, Deserialize)]
pub struct AssignmentRow<S = Option<Scope>> {
    /// The id of the assignment.
    pub assignment_id: Uuid,
    /// The id of the role.
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
    pub fn parse_scope(self, tenant: TenantId) -> Option<AssignmentRow> {
        let scope = scope::from_stored(self.scope.as_deref(), tenant, self.assignment_id).ok()?;
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
/// not exist. `covering_permissions` has all permissions that cover the requested permission.
/// `max_roles` is the maximum number of missing roles.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn explanation_rows(
    db: &Db,
    tenant: TenantId,
    user: SubjectId,
    session: Option<SessionId>,
    covering_permissions: &[String],
    max_roles: i64,
) -> Result<Option<ExplanationRows>> {
    let row = sqlx::query!(
        r#"
        select tenant_state as "tenant_state!: TenantState",
               user_state as "user_state: UserState", session_live,
               snapshot_xmax::text::bigint as "xmax!", (select current_epoch()) as "epoch!",
               assignments::text as "assignments!",
               missing_roles as "missing_roles!: Json<Vec<MissingRoleRow>>"
        from explained_standing($1, $2, $3, $4, $5)
        "#,
        tenant.0,
        user.0,
        session.map(|id| id.0),
        covering_permissions,
        max_roles,
    )
    .fetch_optional(db.executor_in_share(tenant).await?);
    let Some(row) = with_timeout(row).await? else { return Ok(None) };
    let json = row.assignments;
    let assignments = run_decode(tenant, json.len(), move || parse_json(&json)).await?;
    Ok(Some(ExplanationRows {
        tenant_active: row.tenant_state == TenantState::Active,
        user: user_standing(row.user_state),
        session_live: row.session_live == Some(true),
        assignments,
        missing_roles: row.missing_roles.0,
        snapshot: Snapshot { xmax: row.xmax.cast_unsigned(), epoch: row.epoch.cast_unsigned() },
    }))
}

/// Runs a query with a timeout. A query that times out fails as if Postgres were unavailable.
async fn with_timeout<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    let result = time::timeout(QUERY_TIMEOUT, query).await;
    Ok(result.map_err(|_| Error::query_timeout(QUERY_TIMEOUT))??)
}
