//! Tenants: the organisations that are kept apart.
//!
//! - Rule: `find_tenant` (`migrations/0014_find_tenants.sql`) finds a tenant by its whole id or
//!   slug only.
//! - Rule: `sign_in_tenants` (`migrations/0014_find_tenants.sql`) decides which tenants a sign-in
//!   by email alone may mean.

pub mod audited;
pub mod create;
mod lifecycle;
mod rpc;
mod seen;
pub mod settings;
mod slug;
pub mod store;
mod update;

pub use seen::Seen;

use uuid::Uuid;

use crate::{
    api::paging::Pages, db::Db, email, error::Result, ids::TenantId, sessions::SessionCache,
};

/// What the lookups across tenants tell of one.
#[derive(Clone, Debug)]
pub struct TenantRef {
    /// Its id.
    pub id: TenantId,
    /// Its slug.
    pub slug: String,
    /// Whether it is not suspended.
    pub active: bool,
    /// Whether it is the platform.
    pub is_platform: bool,
}

/// The tenant with this id or slug.
///
/// # Errors
/// When Postgres is away.
pub async fn find(db: &Db, key: &str) -> Result<Option<TenantRef>> {
    let found = sqlx::query_as!(
        Found,
        r#"
        select tenant_id as "id!", slug as "slug!", state as "state!",
               is_platform as "is_platform!"
        from find_tenant($1)
        "#,
        key,
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(found.map(TenantRef::from))
}

/// The tenants that have an active user with this email, in the form that is compared:
/// verified addresses first, then the oldest, three at most. With `only_verified`, an
/// address that its user has not proved does not count.
///
/// # Errors
/// When Postgres is away.
pub async fn find_by_email(db: &Db, email_key: &str, only_verified: bool) -> Result<Vec<TenantId>> {
    let lookup = email::index(&*db.common_cipher()?, email_key);
    let found = sqlx::query_scalar!(
        r#"select tenant_id as "tenant_id!: Uuid" from sign_in_tenants($1, $2)"#,
        lookup.as_slice(),
        only_verified,
    )
    .fetch_all(db.pool())
    .await?;
    Ok(found.into_iter().map(TenantId).collect())
}

struct Found {
    id: Uuid,
    slug: String,
    state: String,
    is_platform: bool,
}

impl From<Found> for TenantRef {
    fn from(row: Found) -> Self {
        Self {
            id: TenantId(row.id),
            slug: row.slug,
            active: row.state == "active",
            is_platform: row.is_platform,
        }
    }
}

/// Manages tenants over gRPC.
pub struct Tenants {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// What a suspension must leave.
    pub cache: SessionCache,
    /// The shortest password that the server allows.
    pub min_length: usize,
}
