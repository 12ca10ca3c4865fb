//! SQL for tenants.
//!
//! - Rule: `list_tenants` (`migrations/0028_delete_tenants.sql`) shows other tenants only to the
//!   platform tenant, and no deleted tenants.
//! - Rule: `mark_tenant_deleted` (`migrations/0028_delete_tenants.sql`) decides what a deletion
//!   ends immediately.
//! - Rule: `refuse_deleted_tenant` (`migrations/0028_delete_tenants.sql`) refuses new rows of a
//!   deleted tenant (triggers).

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::TenantState;
use crate::{
    api::{
        filter::Filter,
        paging::{LARGE_ROWS_PER_READ, Page, Position},
    },
    db::{Db, TenantTx},
    email,
    error::{Error, Result},
    ids::TenantId,
    pg::unreadable::{self, Table},
    privacy::NewDataKey,
    proto::{
        json::{self, Stored},
        v1::Tenant,
    },
    sessions::EndedSessions,
};

/// A row of `tenants`.
#[derive(Debug, Clone)]
pub struct TenantRow {
    pub tenant_id: TenantId,
    pub name: String,
    pub slug: String,
    /// A JSON object.
    pub settings: Stored,
    pub state: TenantState,
    /// Incremented with each change; the source of the etag.
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl TenantRow {
    /// False when the tenant is suspended.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == TenantState::Active
    }

    /// The settings; `None` when they can't be read as a JSON object. Reports the row as unreadable
    /// in this case, and also when the settings are nested too deep for a response.
    #[must_use]
    pub fn read_settings(&self) -> Option<Map<String, Value>> {
        let settings = json::read(&self.settings);
        if settings.as_ref().is_none_or(json::is_too_deep) {
            unreadable::report(Table::tenant, self.tenant_id, self.tenant_id.0);
        }
        settings
    }
}

/// Inserts a tenant and its data key. The transaction must already work in this tenant.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    name: &str,
    slug: &str,
    settings: &Value,
    data_key: &NewDataKey,
) -> Result<()> {
    sqlx::query!(
        "insert into tenants (tenant_id, name, slug, settings) values ($1, $2, $3, $4)",
        tenant.0,
        name,
        slug,
        settings,
    )
    .execute(tx.conn())
    .await?;
    tx.insert_data_key(data_key).await
}

/// Reads the transaction's tenant.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant was deleted.
pub async fn get(tx: &mut TenantTx, tenant: TenantId) -> Result<TenantRow> {
    sqlx::query_as!(
        TenantRow,
        r#"
        select tenant_id as "tenant_id: TenantId", name, slug,
               settings as "settings: Stored", state as "state: TenantState", version,
               created_at, updated_at
        from tenants where tenant_id = $1
        "#,
        tenant.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Reads the transaction's tenant and locks its row until the transaction ends.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant was deleted.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId) -> Result<TenantRow> {
    sqlx::query_as!(
        TenantRow,
        r#"
        select tenant_id as "tenant_id: TenantId", name, slug,
               settings as "settings: Stored", state as "state: TenantState", version,
               created_at, updated_at
        from tenants where tenant_id = $1
        for no key update
        "#,
        tenant.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Updates a tenant whose row the transaction has locked with [`lock`].
pub async fn update(tx: &mut TenantTx, new_row: &TenantRow) -> Result<TenantRow> {
    let row = sqlx::query_as!(
        TenantRow,
        r#"
        update tenants
        set name = $2, slug = $3, settings = $4, state = $5, version = version + 1,
            updated_at = now()
        where tenant_id = $1
        returning tenant_id as "tenant_id: TenantId", name, slug,
                  settings as "settings: Stored", state as "state: TenantState", version,
                  created_at, updated_at
        "#,
        new_row.tenant_id.0,
        new_row.name,
        new_row.slug,
        &new_row.settings as _,
        new_row.state.as_str(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// Suspends a tenant whose row the transaction has locked with [`lock`]. This ends the
/// sessions of the tenant.
pub async fn suspend(tx: &mut TenantTx, mut row: TenantRow) -> Result<(TenantRow, EndedSessions)> {
    row.state = TenantState::Suspended;
    let row = update(tx, &row).await?;
    let ended_sessions = EndedSessions::in_tenant(row.tenant_id);
    Ok((row, ended_sessions))
}

/// Reactivates a tenant whose row the transaction has locked with [`lock`].
pub async fn reactivate(tx: &mut TenantTx, mut row: TenantRow) -> Result<TenantRow> {
    row.state = TenantState::Active;
    update(tx, &row).await
}

/// Marks a tenant, whose row the transaction has locked with [`lock`], as deleted, and destroys its
/// data key. The number of changed rows does not depend on the size of the tenant: `purge` deletes
/// the tenant's rows later.
///
/// # Errors
/// Returns `NOT_FOUND` when the tenant was deleted.
pub async fn delete(tx: &mut TenantTx, tenant: TenantId) -> Result<EndedSessions> {
    // The new slug is random, so no other tenant has it already. The old slug is free after the
    // commit.
    sqlx::query!(
        r#"
        update tenants
        set name = 'deleted', slug = 'deleted-' || replace(gen_random_uuid()::text, '-', ''),
            settings = '{}', state = 'suspended', version = version + 1, updated_at = now()
        where tenant_id = $1
        "#,
        tenant.0,
    )
    .execute(tx.conn())
    .await?;
    let is_marked = sqlx::query_scalar!(r#"select mark_tenant_deleted($1) as "done!""#, tenant.0)
        .fetch_one(tx.conn())
        .await?;
    if !is_marked {
        return Err(Error::not_found());
    }
    Ok(EndedSessions::in_tenant(tenant))
}

/// A tenant that was found by a lookup across tenants.
#[derive(Clone, Debug)]
pub struct TenantRef {
    pub id: TenantId,
    pub slug: String,
    pub is_platform: bool,
}

/// Finds the tenant with this id or slug. The connection comes from the share of `charged_tenant`:
/// the tenant of the caller, or a placeholder for the network of a client without a token.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable, and OVERLOADED when no connection of the share
/// becomes free.
pub async fn find(db: &Db, charged_tenant: TenantId, key: &str) -> Result<Option<TenantRef>> {
    let row = sqlx::query!(
        r#"
        select tenant_id as "id!: TenantId", slug as "slug!", is_platform as "is_platform!"
        from find_tenant($1)
        "#,
        key,
    )
    .fetch_optional(db.executor_in_share(charged_tenant).await?)
    .await?;
    Ok(row.map(|row| TenantRef { id: row.id, slug: row.slug, is_platform: row.is_platform }))
}

/// The tenants that have an active user with this normalized email, at most three. Tenants where
/// the address is verified come first, then tenants with older accounts. With
/// `only_verified_emails`, ignores addresses that their users have not verified. The connection
/// comes from the share of `charged_tenant`.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable, and OVERLOADED when no connection of the share
/// becomes free.
pub async fn find_by_email(
    db: &Db,
    charged_tenant: TenantId,
    normalized_email: &str,
    only_verified_emails: bool,
) -> Result<Vec<TenantId>> {
    let email_lookup = email::blind_index(&*db.common_cipher()?, normalized_email);
    let tenants = sqlx::query_scalar!(
        r#"select tenant_id as "tenant_id!: TenantId" from sign_in_tenants($1, $2)"#,
        email_lookup.as_slice(),
        only_verified_emails,
    )
    .fetch_all(db.executor_in_share(charged_tenant).await?)
    .await?;
    Ok(tenants)
}

/// Fills a page with the tenants whose name matches the filter, ordered by id. The page stays empty
/// unless the transaction works in the platform tenant.
pub async fn list(
    tx: &mut TenantTx,
    state: Option<TenantState>,
    slug_like: Option<&str>,
    filter: &Filter,
    page: &mut Page<Tenant>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
        let rows = sqlx::query_as!(
            TenantRow,
            r#"
            select tenant_id as "tenant_id!: TenantId", name as "name!", slug as "slug!",
                   settings as "settings!: Stored", state as "state!: TenantState",
                   version as "version!", created_at as "created_at!", updated_at as "updated_at!"
            from list_tenants($1, $2, $3, $4)
            "#,
            read.after_id(),
            read.limit,
            state.map(TenantState::as_str),
            slug_like,
        )
        .fetch_all(tx.conn())
        .await?;
        let to_item = |row: TenantRow| Ok(filter.matches_text(|_| &row.name).then(|| row.into()));
        page.add_rows(read.batch(rows), |row| Position::by_id(row.tenant_id.0), to_item).await?;
    }
    Ok(())
}
