//! SQL for service accounts.

use time::OffsetDateTime;

use crate::{
    api::{
        filter::Filter,
        names,
        paging::{LARGE_ROWS_PER_READ, Page, Position},
    },
    db::TenantTx,
    error::{Error, Result},
    ids::{SubjectId, TenantId},
    proto::v1::ServiceAccount,
    sessions::EndedSessions,
};

/// A row of the table `service_accounts`.
pub struct AccountRow {
    pub tenant_id: TenantId,
    pub account_id: SubjectId,
    /// The name, unique in the tenant.
    pub name: String,
    pub description: String,
    /// Version of the row, for its etag.
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Inserts an account.
///
/// # Errors
/// `ALREADY_EXISTS` when an account of the tenant has the same normalized name
/// ([`names::normalized_account_name`]).
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
    name: &str,
    description: &str,
) -> Result<AccountRow> {
    let row = sqlx::query_as!(
        AccountRow,
        r#"
        insert into service_accounts (tenant_id, account_id, name, description, name_key)
        values ($1, $2, $3, $4, $5)
        returning tenant_id as "tenant_id: TenantId", account_id as "account_id: SubjectId",
                  name, description, version, created_at, updated_at
        "#,
        tenant.0,
        account.0,
        name,
        description,
        names::normalized_account_name(name),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// The number of the tenant's accounts.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn count(tx: &mut TenantTx, tenant: TenantId) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from service_accounts where tenant_id = $1"#,
        tenant.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}

/// Reads an account of the tenant.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such account.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, account: SubjectId) -> Result<AccountRow> {
    sqlx::query_as!(
        AccountRow,
        r#"
        select tenant_id as "tenant_id: TenantId", account_id as "account_id: SubjectId",
               name, description, version, created_at, updated_at
        from service_accounts where tenant_id = $1 and account_id = $2
        "#,
        tenant.0,
        account.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Reads an account of the tenant and locks its row until the transaction ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such account.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, account: SubjectId) -> Result<AccountRow> {
    sqlx::query_as!(
        AccountRow,
        r#"
        select tenant_id as "tenant_id: TenantId", account_id as "account_id: SubjectId",
               name, description, version, created_at, updated_at
        from service_accounts where tenant_id = $1 and account_id = $2
        for no key update
        "#,
        tenant.0,
        account.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Fills a page with the accounts whose name matches the filter, in order of id.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    filter: &Filter,
    page: &mut Page<ServiceAccount>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
        let rows = sqlx::query_as!(
            AccountRow,
            r#"
            select tenant_id as "tenant_id: TenantId", account_id as "account_id: SubjectId",
                   name, description, version, created_at, updated_at
            from service_accounts
            where tenant_id = $1 and account_id > $2
            order by account_id
            limit $3
            "#,
            tenant.0,
            read.after_id(),
            read.limit,
        )
        .fetch_all(tx.conn())
        .await?;
        let convert = |row: AccountRow| Ok(filter.matches_text(|_| &row.name).then(|| row.into()));
        page.add_rows(read.batch(rows), |row| Position::by_id(row.account_id.0), convert).await?;
    }
    Ok(())
}

/// Deletes an account whose row the transaction has locked with [`lock`]. Its keys and role
/// assignments are deleted with it.
pub async fn delete(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
) -> Result<EndedSessions> {
    sqlx::query!(
        "delete from service_accounts where tenant_id = $1 and account_id = $2",
        tenant.0,
        account.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(EndedSessions::in_tenant(tenant))
}
