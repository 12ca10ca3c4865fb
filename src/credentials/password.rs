//! What users sign in with. Apart from the users, so that no list of them ever
//! reads a hash.
//!
//! - Rule: `sign_in_candidate` (`migrations/0017_sign_in_candidate.sql`) decides whether the user
//!   and the tenant of an email may sign in.
//! - Rule: `end_mail_links` (`migrations/0008_passwords.sql`) ends the reset token when the
//!   password, the email or the state changes (triggers).

use uuid::Uuid;

use crate::{
    db::{Db, TenantTx},
    email,
    error::Result,
    ids::{TenantId, UserId},
    users::store::Found,
};

/// A user as a sign-in sees it.
pub struct Candidate {
    /// The user.
    pub user: UserId,
    /// Whether user and tenant are both active.
    pub active: bool,
    /// What to compare the password with; `None` for a user without one.
    pub password_hash: Option<String>,
}

/// The tenant's user with this email, in the form that is compared, in one round trip.
/// It is the same work for a tenant that has no such user and for no tenant. The connection
/// is of the given share: the tenant's, where its caller has named it.
///
/// # Errors
/// When Postgres or the master key is away.
pub async fn candidate(
    db: &Db,
    share: TenantId,
    tenant: TenantId,
    email_key: &str,
) -> Result<Option<Candidate>> {
    let cipher = match db.cipher(tenant).await? {
        Some(cipher) => cipher,
        None => db.common_cipher()?,
    };
    let index = email::index(&cipher, email_key);
    let row = sqlx::query!(
        r#"
        select user_id as "user_id!: Uuid", active as "active!", password_hash,
               version as "version!", profile as "profile!", email_lookup as "email_lookup!"
        from sign_in_candidate($1, $2)
        "#,
        tenant.0,
        index.as_slice(),
    )
    .fetch_optional(db.statement_in_share(share).await?)
    .await?;
    // An index that was moved to another user leads to nobody.
    let whole = row.filter(|row| {
        let found = Found {
            user: row.user_id,
            version: row.version,
            profile: &row.profile,
            email_index: &index,
            email_lookup: &row.email_lookup,
        };
        found.is_whole(&cipher)
    });
    Ok(whole.map(|row| Candidate {
        user: UserId(row.user_id),
        active: row.active,
        password_hash: row.password_hash,
    }))
}

/// A user's hash.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<Option<String>> {
    let hash = sqlx::query_scalar!(
        "select password_hash from credentials where tenant_id = $1 and user_id = $2",
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(hash)
}

/// Gives a user a hash, whatever it had.
pub async fn set(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    password_hash: &str,
) -> Result<()> {
    sqlx::query!(
        r#"
        insert into credentials (tenant_id, user_id, password_hash) values ($1, $2, $3)
        on conflict (tenant_id, user_id)
        do update set password_hash = excluded.password_hash, updated_at = now()
        "#,
        tenant.0,
        user.0,
        password_hash,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Replaces a hash if it is still the one that was verified; says whether it
/// was.
pub async fn replace(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    verified: &str,
    new: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        update credentials set password_hash = $4, updated_at = now()
        where tenant_id = $1 and user_id = $2 and password_hash = $3
        "#,
        tenant.0,
        user.0,
        verified,
        new,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}
