//! Roles and their assignments in Postgres.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{AssignmentId, RoleId, TenantId, UserId},
    listing::Page,
};

/// A role to write.
pub struct NewRole<'a> {
    /// The role.
    pub id: RoleId,
    /// Its name.
    pub name: &'a str,
    /// Its level, a `RoleLevel`.
    pub level: i16,
    /// What it permits.
    pub permissions: &'a [String],
    /// Whether it is a system role.
    pub system: bool,
}

/// A role as it is kept.
#[derive(Debug, Clone)]
pub struct RoleRow {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The role.
    pub role_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its level, a `RoleLevel`.
    pub level: i16,
    /// What it permits.
    pub permissions: Vec<String>,
    /// Whether it is a system role.
    pub is_system: bool,
    /// Counts its changes.
    pub version: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// Writes a role.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has one of this name.
pub async fn insert(tx: &mut TenantTx, tenant: TenantId, new: &NewRole<'_>) -> Result<RoleRow> {
    let row = sqlx::query_as!(
        RoleRow,
        r#"
        insert into roles (tenant_id, role_id, name, level, permissions, is_system)
        values ($1, $2, $3, $4, $5, $6)
        returning tenant_id, role_id, name, level, permissions, is_system, version,
                  created_at, updated_at
        "#,
        tenant.0,
        new.id.0,
        new.name,
        new.level,
        new.permissions,
        new.system,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// A role of the tenant.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such role.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, role: RoleId) -> Result<RoleRow> {
    sqlx::query_as!(
        RoleRow,
        r#"
        select tenant_id, role_id, name, level, permissions, is_system, version,
               created_at, updated_at
        from roles where tenant_id = $1 and role_id = $2
        "#,
        tenant.0,
        role.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// A role of the tenant, locked against other changes until the transaction
/// ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such role.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, role: RoleId) -> Result<RoleRow> {
    sqlx::query_as!(
        RoleRow,
        r#"
        select tenant_id, role_id, name, level, permissions, is_system, version,
               created_at, updated_at
        from roles where tenant_id = $1 and role_id = $2
        for no key update
        "#,
        tenant.0,
        role.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// The tenant's system role of a name.
pub async fn find_system(
    tx: &mut TenantTx,
    tenant: TenantId,
    name: &str,
) -> Result<Option<RoleId>> {
    let role = sqlx::query_scalar!(
        "select role_id from roles where tenant_id = $1 and name = $2 and is_system",
        tenant.0,
        name,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(role.map(RoleId))
}

/// A page of roles, by id; `None` asks for any level or name.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    level: Option<i16>,
    name_like: Option<&str>,
    page: &Page,
) -> Result<Vec<RoleRow>> {
    let rows = sqlx::query_as!(
        RoleRow,
        r#"
        select tenant_id, role_id, name, level, permissions, is_system, version,
               created_at, updated_at
        from roles
        where tenant_id = $1 and role_id > $2
          and ($3::smallint is null or level = $3)
          and ($4::text is null or name like $4)
        order by role_id
        limit $5
        "#,
        tenant.0,
        page.after,
        level,
        name_like,
        page.limit(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Writes what has changed of a locked role.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has another role of the new name.
pub async fn update(tx: &mut TenantTx, changed: &RoleRow) -> Result<RoleRow> {
    let row = sqlx::query_as!(
        RoleRow,
        r#"
        update roles
        set name = $3, level = $4, permissions = $5, version = version + 1, updated_at = now()
        where tenant_id = $1 and role_id = $2
        returning tenant_id, role_id, name, level, permissions, is_system, version,
                  created_at, updated_at
        "#,
        changed.tenant_id,
        changed.role_id,
        changed.name,
        changed.level,
        &changed.permissions,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// Deletes a locked role, with assignments that have ended.
///
/// # Errors
/// `FAILED_PRECONDITION` while somebody has it.
pub async fn delete(tx: &mut TenantTx, tenant: TenantId, role: RoleId) -> Result<()> {
    sqlx::query!(
        r#"
        delete from role_assignments
        where tenant_id = $1 and role_id = $2 and expires_at <= now()
        "#,
        tenant.0,
        role.0,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!("delete from roles where tenant_id = $1 and role_id = $2", tenant.0, role.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// An assignment to write.
pub struct NewAssignment {
    /// The assignment.
    pub id: AssignmentId,
    /// Who gets the role.
    pub user: UserId,
    /// The role.
    pub role: RoleId,
    /// Where it applies; everywhere when `None`.
    pub scope: Option<Value>,
    /// The scope's key: what makes two scopes the same.
    pub scope_key: Vec<u8>,
    /// When it ends; never when `None`.
    pub expires_at: Option<OffsetDateTime>,
}

/// An assignment as it is kept.
#[derive(Debug)]
pub struct AssignmentRow {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The assignment.
    pub assignment_id: Uuid,
    /// Who has the role.
    pub user_id: Uuid,
    /// The role.
    pub role_id: Uuid,
    /// The role's name.
    pub role_name: String,
    /// Where it applies.
    pub scope: Option<Value>,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Writes an assignment, in the place of one with the same key that has ended.
///
/// # Errors
/// `ALREADY_EXISTS` when the user has the role with this scope.
pub async fn insert_assignment(
    tx: &mut TenantTx,
    tenant: TenantId,
    new: &NewAssignment,
) -> Result<OffsetDateTime> {
    sqlx::query!(
        r#"
        delete from role_assignments
        where tenant_id = $1 and user_id = $2 and role_id = $3 and scope_key = $4
          and expires_at <= now()
        "#,
        tenant.0,
        new.user.0,
        new.role.0,
        new.scope_key,
    )
    .execute(tx.conn())
    .await?;
    let created_at = sqlx::query_scalar!(
        r#"
        insert into role_assignments
            (tenant_id, assignment_id, user_id, role_id, scope, scope_key, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        returning created_at
        "#,
        tenant.0,
        new.id.0,
        new.user.0,
        new.role.0,
        new.scope,
        new.scope_key,
        new.expires_at,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(created_at)
}

/// Removes a role from a user, with a key only where the scope is that one;
/// says how many assignments it removed.
pub async fn delete_assignments(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    role: RoleId,
    scope_key: Option<&[u8]>,
) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from role_assignments
        where tenant_id = $1 and user_id = $2 and role_id = $3
          and ($4::bytea is null or scope_key = $4)
        "#,
        tenant.0,
        user.0,
        role.0,
        scope_key,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Which assignments to list; `None` asks for any.
pub struct AssignmentFilter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Of this role.
    pub role: Option<RoleId>,
    /// A LIKE pattern on the role's name.
    pub role_name_like: Option<String>,
}

/// A page of assignments that have not ended, by id.
pub async fn list_assignments(
    tx: &mut TenantTx,
    tenant: TenantId,
    filter: &AssignmentFilter,
    page: &Page,
) -> Result<Vec<AssignmentRow>> {
    let rows = sqlx::query_as!(
        AssignmentRow,
        r#"
        select a.tenant_id, a.assignment_id, a.user_id, a.role_id, r.name as role_name,
               a.scope, a.expires_at, a.created_at
        from role_assignments a
        join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
        where a.tenant_id = $1 and a.assignment_id > $2
          and (a.expires_at is null or a.expires_at > now())
          and ($3::uuid is null or a.user_id = $3)
          and ($4::uuid is null or a.role_id = $4)
          and ($5::text is null or r.name like $5)
        order by a.assignment_id
        limit $6
        "#,
        tenant.0,
        page.after,
        filter.user.map(|id| id.0),
        filter.role.map(|id| id.0),
        filter.role_name_like,
        page.limit(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}
