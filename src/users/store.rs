//! Users in Postgres.

use time::OffsetDateTime;
use uuid::Uuid;

use super::email;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{TenantId, UserId},
    listing::Page,
    proto::v1::UserState,
};

/// A user as it is kept.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// The email as it was given.
    pub email: String,
    /// The name to show.
    pub display_name: String,
    /// `active` or `disabled`.
    pub state: String,
    /// Whether the user has shown that the email is theirs.
    pub email_verified: bool,
    /// Counts its changes.
    pub version: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// Writes a user.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has one with this email.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    email: &str,
    display_name: &str,
) -> Result<UserRow> {
    let row = sqlx::query_as!(
        UserRow,
        r#"
        insert into users (tenant_id, user_id, email, email_key, display_name)
        values ($1, $2, $3, $4, $5)
        returning tenant_id, user_id, email, display_name, state, email_verified, version,
                  created_at, updated_at
        "#,
        tenant.0,
        user.0,
        email,
        email::key(email),
        display_name,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// A user of the tenant.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<UserRow> {
    sqlx::query_as!(
        UserRow,
        r#"
        select tenant_id, user_id, email, display_name, state, email_verified, version,
               created_at, updated_at
        from users where tenant_id = $1 and user_id = $2
        "#,
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// A user of the tenant, locked against other changes until the transaction
/// ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<UserRow> {
    sqlx::query_as!(
        UserRow,
        r#"
        select tenant_id, user_id, email, display_name, state, email_verified, version,
               created_at, updated_at
        from users where tenant_id = $1 and user_id = $2
        for no key update
        "#,
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Whether the tenant has the user.
pub async fn exists(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from users where tenant_id = $1 and user_id = $2) as "found!""#,
        tenant.0,
        user.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(found)
}

/// The tenant's user with an email, in any case.
pub async fn find_by_email(
    tx: &mut TenantTx,
    tenant: TenantId,
    email: &str,
) -> Result<Option<UserRow>> {
    let row = sqlx::query_as!(
        UserRow,
        r#"
        select tenant_id, user_id, email, display_name, state, email_verified, version,
               created_at, updated_at
        from users where tenant_id = $1 and email_key = $2
        "#,
        tenant.0,
        email::key(email),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row)
}

/// Which users to list; `None` asks for any.
pub struct UserFilter {
    /// `active` or `disabled`.
    pub state: Option<&'static str>,
    /// A LIKE pattern on the compared form of the email.
    pub email_like: Option<String>,
    /// A LIKE pattern on the name.
    pub name_like: Option<String>,
}

/// A page of users, by id.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    filter: &UserFilter,
    page: &Page,
) -> Result<Vec<UserRow>> {
    let rows = sqlx::query_as!(
        UserRow,
        r#"
        select tenant_id, user_id, email, display_name, state, email_verified, version,
               created_at, updated_at
        from users
        where tenant_id = $1 and user_id > $2
          and ($3::text is null or state = $3)
          and ($4::text is null or email_key like $4)
          and ($5::text is null or display_name like $5)
        order by user_id
        limit $6
        "#,
        tenant.0,
        page.after,
        filter.state,
        filter.email_like,
        filter.name_like,
        page.limit(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Writes what has changed of a locked user.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has another user with the new email.
pub async fn update(tx: &mut TenantTx, changed: &UserRow) -> Result<UserRow> {
    let row = sqlx::query_as!(
        UserRow,
        r#"
        update users
        set email = $3, email_key = $4, display_name = $5, state = $6, email_verified = $7,
            version = version + 1, updated_at = now()
        where tenant_id = $1 and user_id = $2
        returning tenant_id, user_id, email, display_name, state, email_verified, version,
                  created_at, updated_at
        "#,
        changed.tenant_id,
        changed.user_id,
        changed.email,
        email::key(&changed.email),
        changed.display_name,
        changed.state,
        changed.email_verified,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// Deletes a locked user with its credentials, sessions and assignments.
pub async fn delete(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<()> {
    sqlx::query!("delete from users where tenant_id = $1 and user_id = $2", tenant.0, user.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// A state as it is kept.
pub(super) fn state_text(state: UserState) -> &'static str {
    match state {
        UserState::Disabled => "disabled",
        UserState::Active | UserState::Unspecified => "active",
    }
}
