//! Roles in Postgres.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    api::{
        filter::Filter,
        names,
        paging::{LARGE_ROWS, Page, Position},
    },
    db::TenantTx,
    error::{Error, Result},
    ids::{RoleId, TenantId},
    proto::v1::Role,
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
/// `ALREADY_EXISTS` when the tenant has one whose name reads alike.
pub async fn insert(tx: &mut TenantTx, tenant: TenantId, new: &NewRole<'_>) -> Result<RoleRow> {
    let row = sqlx::query_as!(
        RoleRow,
        r#"
        insert into roles (tenant_id, role_id, name, name_key, level, permissions, is_system)
        values ($1, $2, $3, $7, $4, $5, $6)
        returning tenant_id, role_id, name, level, permissions, is_system, version,
                  created_at, updated_at
        "#,
        tenant.0,
        new.id.0,
        new.name,
        new.level,
        new.permissions,
        new.system,
        names::role_key(new.name),
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

/// What the tenant has of roles, but for one of them.
pub struct Others {
    /// How many.
    pub count: i64,
    /// Their permissions.
    pub permissions: i64,
    /// The bytes of these.
    pub bytes: i64,
}

/// What a locked tenant has of roles besides this one.
///
/// # Errors
/// When Postgres is away.
pub async fn others(tx: &mut TenantTx, tenant: TenantId, role: RoleId) -> Result<Others> {
    let others = sqlx::query_as!(
        Others,
        r#"
        select count(*) as "count!", coalesce(sum(cardinality(permissions)), 0) as "permissions!",
               coalesce(sum(octet_length(array_to_string(permissions, ''))), 0) as "bytes!"
        from roles where tenant_id = $1 and role_id <> $2
        "#,
        tenant.0,
        role.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(others)
}

/// The system role of this name, for users who register to join a tenant; `None` where nobody
/// may: in the platform tenant, and in one without the role.
pub async fn of_newcomers(
    tx: &mut TenantTx,
    tenant: TenantId,
    name: &str,
) -> Result<Option<RoleId>> {
    let role = sqlx::query_scalar!(
        r#"
        select r.role_id
        from roles r join tenants t on t.tenant_id = r.tenant_id
        where r.tenant_id = $1 and r.name = $2 and r.is_system and not t.is_platform
        "#,
        tenant.0,
        name,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(role.map(RoleId))
}

/// Fills a page with roles whose name the filter takes, by id; `None` asks for any level.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    level: Option<i16>,
    filter: &Filter,
    page: &mut Page<Role>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS) {
        let rows = sqlx::query_as!(
            RoleRow,
            r#"
            select tenant_id, role_id, name, level, permissions, is_system, version,
                   created_at, updated_at
            from roles
            where tenant_id = $1 and role_id > $2
              and ($3::smallint is null or level = $3)
            order by role_id
            limit $4
            "#,
            tenant.0,
            read.after_id(),
            level,
            read.limit,
        )
        .fetch_all(tx.conn())
        .await?;
        let show = |row: RoleRow| Ok(filter.matches(|_| &row.name).then(|| row.into()));
        page.take(read.found(rows), |row| Position::of(row.role_id), show).await?;
    }
    Ok(())
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
        set name = $3, name_key = case when name = $3 then name_key else $6 end, level = $4,
            permissions = $5, version = version + 1, updated_at = now()
        where tenant_id = $1 and role_id = $2
        returning tenant_id, role_id, name, level, permissions, is_system, version,
                  created_at, updated_at
        "#,
        changed.tenant_id,
        changed.role_id,
        changed.name,
        changed.level,
        &changed.permissions,
        names::role_key(&changed.name),
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
