//! SQL for roles.

use time::OffsetDateTime;

use crate::{
    api::{
        filter::Filter,
        names,
        paging::{LARGE_ROWS_PER_READ, Page, Position},
    },
    db::TenantTx,
    error::{Error, Result},
    ids::{RoleId, TenantId},
    proto::v1::Role,
};

/// A role to insert.
pub struct NewRole<'a> {
    pub id: RoleId,
    pub name: &'a str,
    /// The numeric value of a `RoleLevel`.
    pub level: i16,
    pub permissions: &'a [String],
    pub system: bool,
}

/// A row of `roles`.
#[derive(Debug, Clone)]
pub struct RoleRow {
    pub tenant_id: TenantId,
    pub role_id: RoleId,
    pub name: String,
    /// The numeric value of a `RoleLevel`.
    pub level: i16,
    pub permissions: Vec<String>,
    pub is_system: bool,
    /// Incremented with each change; the source of the etag.
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Inserts a role.
///
/// # Errors
/// Returns `ALREADY_EXISTS` when the tenant has a role with this name; case and word separators are
/// ignored.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    new_role: &NewRole<'_>,
) -> Result<RoleRow> {
    let row = sqlx::query_as!(
        RoleRow,
        r#"
        insert into roles (tenant_id, role_id, name, name_key, level, permissions, is_system)
        values ($1, $2, $3, $7, $4, $5, $6)
        returning tenant_id as "tenant_id: TenantId", role_id as "role_id: RoleId", name, level,
                  permissions, is_system, version, created_at, updated_at
        "#,
        tenant.0,
        new_role.id.0,
        new_role.name,
        new_role.level,
        new_role.permissions,
        new_role.system,
        names::normalized_role_name(new_role.name),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// Reads a role.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant has no such role.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, role: RoleId) -> Result<RoleRow> {
    sqlx::query_as!(
        RoleRow,
        r#"
        select tenant_id as "tenant_id: TenantId", role_id as "role_id: RoleId", name, level,
               permissions, is_system, version, created_at, updated_at
        from roles where tenant_id = $1 and role_id = $2
        "#,
        tenant.0,
        role.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Reads a role and locks its row until the transaction ends.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant has no such role.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, role: RoleId) -> Result<RoleRow> {
    sqlx::query_as!(
        RoleRow,
        r#"
        select tenant_id as "tenant_id: TenantId", role_id as "role_id: RoleId", name, level,
               permissions, is_system, version, created_at, updated_at
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

/// Totals over all roles of a tenant, except for one role.
pub struct TotalsOfOtherRoles {
    /// The number of roles.
    pub count: i64,
    /// The number of permissions of these roles.
    pub permissions: i64,
    /// The total length of these permissions, in bytes.
    pub bytes: i64,
}

/// Computes the totals of all roles except for `role`. The transaction must hold the row lock of
/// the tenant.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn totals_except(
    tx: &mut TenantTx,
    tenant: TenantId,
    role: RoleId,
) -> Result<TotalsOfOtherRoles> {
    let totals = sqlx::query_as!(
        TotalsOfOtherRoles,
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
    Ok(totals)
}

/// The system role with this name, for users who register in the tenant. Returns `None` in the
/// platform tenant, where nobody may register, and in a tenant without this role.
pub async fn self_registration_role(
    tx: &mut TenantTx,
    tenant: TenantId,
    name: &str,
) -> Result<Option<RoleId>> {
    let role = sqlx::query_scalar!(
        r#"
        select r.role_id as "role_id: RoleId"
        from roles r join tenants t on t.tenant_id = r.tenant_id
        where r.tenant_id = $1 and r.name = $2 and r.is_system and not t.is_platform
        "#,
        tenant.0,
        name,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(role)
}

/// Fills a page with the roles whose name the filter matches, ordered by id. `level: None` matches
/// any level.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    level: Option<i16>,
    filter: &Filter,
    page: &mut Page<Role>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
        let rows = sqlx::query_as!(
            RoleRow,
            r#"
            select tenant_id as "tenant_id: TenantId", role_id as "role_id: RoleId", name, level,
                   permissions, is_system, version, created_at, updated_at
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
        let to_item = |row: RoleRow| Ok(filter.matches_text(|_| &row.name).then(|| row.into()));
        page.add_rows(read.batch(rows), |row| Position::by_id(row.role_id.0), to_item).await?;
    }
    Ok(())
}

/// Updates a role whose row the transaction has locked with [`lock`].
///
/// # Errors
/// Returns `ALREADY_EXISTS` when another role of the tenant has the new name.
pub async fn update(tx: &mut TenantTx, new_row: &RoleRow) -> Result<RoleRow> {
    let row = sqlx::query_as!(
        RoleRow,
        r#"
        update roles
        set name = $3, name_key = case when name = $3 then name_key else $6 end, level = $4,
            permissions = $5, version = version + 1, updated_at = now()
        where tenant_id = $1 and role_id = $2
        returning tenant_id as "tenant_id: TenantId", role_id as "role_id: RoleId", name, level,
                  permissions, is_system, version, created_at, updated_at
        "#,
        new_row.tenant_id.0,
        new_row.role_id.0,
        new_row.name,
        new_row.level,
        &new_row.permissions,
        names::normalized_role_name(&new_row.name),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// Deletes a role, whose row the transaction has locked with [`lock`], and the role's expired
/// assignments.
///
/// # Errors
/// Returns `FAILED_PRECONDITION` when a subject has the role.
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

/// Counts the active users who have a role of at least this level with the permission `*:*`,
/// assigned without a scope and without an expiry.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub(super) async fn count_admins(tx: &mut TenantTx, tenant: TenantId, level: i16) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from role_assignments a
        join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
        join users u on u.tenant_id = a.tenant_id and u.user_id = a.user_id
        where a.tenant_id = $1 and r.level >= $2 and r.permissions @> array['*:*']
          and u.state = 'active' and a.scope is null and a.expires_at is null
        "#,
        tenant.0,
        level,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}
