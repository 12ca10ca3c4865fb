//! What decisions depend on, in Postgres.
//!
//! - Rule: `subject_standings` (`migrations/0015_decide_permissions.sql`) decides which
//!   assignments, sessions and API keys are in force.
//! - Rule: `explained_standing` (`migrations/0016_explain_permission.sql`) decides the same, and
//!   which roles an explanation suggests.

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
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    pg::Observed,
    shares::Shares,
};

/// How long Postgres may take to answer before it counts as away.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of JSON that are decoded on the thread that serves the call, at most: it takes
/// a fraction of a millisecond. More is decoded on a thread that serves none.
const AT_ONCE: usize = 64 * 1024;

/// Long reads that are decoded at the same time, at most one of a tenant; further ones wait,
/// each until its call's deadline.
static LONG_READS: LazyLock<Arc<Shares>> = LazyLock::new(|| Shares::new(2));

/// What was read of some subjects of one tenant at one moment.
pub struct Subjects {
    /// What they hold, in the order in which they were asked for.
    pub standings: Vec<Standing>,
    /// Whether the session that was asked about is one of theirs and live; false
    /// when none was asked about.
    pub session_live: bool,
    /// Below it lies every transaction that this has seen.
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
    state: String,
    grants: Vec<GrantRow>,
}

#[derive(Debug, Deserialize)]
struct GrantRow {
    assignment_id: Uuid,
    role_id: Uuid,
    scope: Option<Box<RawValue>>,
    expires_at: Option<i64>,
}

/// What subjects hold, each of them asked for once, in one round trip; `None`
/// when there is no such tenant.
///
/// # Errors
/// UNAVAILABLE when Postgres is away.
pub async fn standings(
    db: &Db,
    tenant_id: TenantId,
    users: &[UserId],
    session: Option<SessionId>,
) -> Result<Option<Subjects>> {
    read(db.single(tenant_id).await?, tenant_id, users, session).await
}

/// What a subject holds as a transaction in its tenant sees it, and whether the session
/// that is asked about is its own and live; `None` when there is no such tenant.
///
/// # Errors
/// UNAVAILABLE when Postgres is away.
pub async fn standing_in(
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
        select tenant_slug as "tenant_slug!", tenant_state as "tenant_state!",
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
    let Some(row) = patiently(row).await? else { return Ok(None) };
    let shared = Arc::new(Shared::new(Tenant {
        slug: row.tenant_slug,
        active: row.tenant_state == "active",
        is_platform: row.is_platform,
        takes_api_keys: row.takes_api_keys,
    }));
    let size = row.roles.len() + row.subjects.len();
    let decode = move || decode(&ids, tenant_id, &shared, &row.roles, &row.subjects);
    let standings = if size > AT_ONCE { elsewhere(tenant_id, decode).await? } else { decode()? };
    let session_live = row.session_live == Some(true);
    Ok(Some(Subjects { standings, session_live, xmax: row.xmax.cast_unsigned() }))
}

/// Works on a thread that serves no calls.
async fn elsewhere<T: Send + 'static>(
    tenant: TenantId,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = LONG_READS.acquire(tenant).await;
    // With the work: it goes on when its call is given up.
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    task::spawn_blocking(work).await.map_err(|_| Error::defect("a read was given up"))?
}

/// What subjects hold, from the JSON of their roles and their assignments.
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
    let mut found: HashMap<Uuid, SubjectRow> =
        subjects.into_iter().map(|subject| (subject.user_id, subject)).collect();
    ids.iter().map(|id| standing(tenant_id, tenant.clone(), found.remove(id), &roles)).collect()
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

fn standing(
    tenant_id: TenantId,
    tenant: Arc<Shared<Tenant>>,
    found: Option<SubjectRow>,
    roles: &HashMap<Uuid, Arc<Shared<Role>>>,
) -> Result<Standing> {
    let user = user_standing(found.as_ref().map(|subject| subject.state.as_str()))?;
    let grants = found.map(|subject| subject.grants).unwrap_or_default();
    // Exactly as many as there are: these stay in memory.
    let mut held = Vec::with_capacity(grants.len());
    for row in grants {
        let kept = scope::kept(row.scope.as_deref(), tenant_id, row.assignment_id);
        let Ok(scope) = kept else { continue };
        let role = roles.get(&row.role_id).cloned();
        let role = role.ok_or_else(|| Error::defect("an assignment without its role"))?;
        held.push(Grant::new(role, scope, row.expires_at));
    }
    Ok(Standing { tenant, user, grants: held.into(), weight: 0 })
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

fn user_standing(state: Option<&str>) -> Result<UserStanding> {
    match state {
        None => Ok(UserStanding::Unknown),
        Some("active") => Ok(UserStanding::Active),
        Some("disabled") => Ok(UserStanding::Disabled),
        Some(_) => Err(Error::defect("a user in no known state")),
    }
}

/// What was read of one subject to explain a decision about it.
pub struct Explained {
    /// Whether the tenant is not suspended.
    pub tenant_active: bool,
    /// Whether the tenant has the user, and it may act.
    pub user: UserStanding,
    /// Whether the session that was asked about is the user's and live; false
    /// when none was asked about.
    pub session_live: bool,
    /// The subject's assignments, also those that have ended, whose role
    /// permits what was asked for; their scopes are yet to be read.
    pub assignments: Vec<AssignmentRow<Option<Box<RawValue>>>>,
    /// The lowest roles that would permit it and that the subject was never
    /// given.
    pub missing_roles: Vec<MissingRoleRow>,
    /// Below it lies every transaction that this has seen.
    pub xmax: u64,
}

/// An assignment whose role permits what was asked for; its scope as a `S`.
#[derive(Debug, Deserialize)]
pub struct AssignmentRow<S = Option<Scope>> {
    /// The assignment.
    pub assignment_id: Uuid,
    /// The role.
    pub role_id: Uuid,
    /// Its name.
    pub role_name: String,
    /// Its level.
    pub level: i32,
    /// That of its permissions which permits it.
    pub permission: String,
    /// Where the assignment applies; everywhere when `None`.
    pub scope: S,
    /// When it ends, in seconds since 1970; never when `None`.
    pub expires_at: Option<i64>,
}

impl AssignmentRow<Option<Box<RawValue>>> {
    /// With its scope; `None` when that can't be read.
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

/// A role that would permit what was asked for.
#[derive(Debug, Deserialize)]
pub struct MissingRoleRow {
    /// The role.
    pub role_id: Uuid,
    /// Its name.
    pub role_name: String,
    /// Its level.
    pub level: i32,
    /// That of its permissions which permits it.
    pub permission: String,
}

/// What explains a decision, in one round trip; `None` when there is no such
/// tenant. `forms` are the permissions of a role that permit what is asked for,
/// `roles` is how many missing roles to look for.
///
/// # Errors
/// UNAVAILABLE when Postgres is away.
pub async fn explained(
    db: &Db,
    tenant: TenantId,
    user: UserId,
    session: Option<SessionId>,
    forms: &[String],
    roles: i64,
) -> Result<Option<Explained>> {
    let row = sqlx::query!(
        r#"
        select tenant_state as "tenant_state!", user_state, session_live,
               snapshot_xmax::text::bigint as "xmax!",
               assignments as "assignments!: Json<Vec<AssignmentRow<Option<Box<RawValue>>>>>",
               missing_roles as "missing_roles!: Json<Vec<MissingRoleRow>>"
        from explained_standing($1, $2, $3, $4, $5)
        "#,
        tenant.0,
        user.0,
        session.map(|id| id.0),
        forms,
        roles,
    )
    .fetch_optional(db.single(tenant).await?);
    let Some(row) = patiently(row).await? else { return Ok(None) };
    Ok(Some(Explained {
        tenant_active: row.tenant_state == "active",
        user: user_standing(row.user_state.as_deref())?,
        session_live: row.session_live == Some(true),
        assignments: row.assignments.0,
        missing_roles: row.missing_roles.0,
        xmax: row.xmax.cast_unsigned(),
    }))
}

/// One that hangs is away as well.
async fn patiently<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    Ok(time::timeout(QUERY_TIMEOUT, query).await.map_err(|_| sqlx::Error::PoolTimedOut)??)
}
