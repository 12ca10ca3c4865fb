//! SQL for password hashes.
//!
//! - Rule: `sign_in_candidate` (`migrations/0017_sign_in_candidate.sql`) decides whether the user
//!   and the tenant of an email may sign in.
//! - Rule: `end_mail_links` (`migrations/0008_passwords.sql`) deletes the mailed links of a user
//!   when the password, the email or the state changes (triggers).

use crate::{
    db::{Db, TenantTx},
    email,
    error::Result,
    ids::{SubjectId, TenantId},
    users::store::UserByEmail,
};

/// The user whose password hash a sign-in compares with the given password.
pub struct Candidate {
    pub user: SubjectId,
    /// Whether the user and the tenant are both active.
    pub active: bool,
    /// `None` for a user without a password.
    pub password_hash: Option<String>,
}

/// Finds the tenant's user with this normalised email, in one round trip. The same statement also
/// runs when the tenant has no such user, and when the tenant does not exist. So the response time
/// does not show which case applies. The connection comes from the share of `charged_tenant`, which
/// is `tenant` when the call named the tenant.
///
/// # Errors
/// UNAVAILABLE when Postgres or the master key is unavailable.
pub async fn find_candidate(
    db: &Db,
    charged_tenant: TenantId,
    tenant: TenantId,
    normalized_email: &str,
) -> Result<Option<Candidate>> {
    // A tenant that does not exist has no cipher. Then the common cipher is used.
    let cipher = match db.cipher_in_share(charged_tenant, tenant).await? {
        Some(cipher) => cipher,
        None => db.common_cipher()?,
    };
    let email_index = email::blind_index(&cipher, normalized_email);
    let row = sqlx::query!(
        r#"
        select user_id as "user_id!: SubjectId", active as "active!", password_hash,
               version as "version!", profile as "profile!", email_lookup as "email_lookup!"
        from sign_in_candidate($1, $2)
        "#,
        tenant.0,
        email_index.as_slice(),
    )
    .fetch_optional(db.executor_in_share(charged_tenant).await?)
    .await?;
    // Rejects a row whose email index was copied from another user in the database.
    let row = row.filter(|row| {
        let found_user = UserByEmail {
            user: row.user_id,
            version: row.version,
            profile: &row.profile,
            email_index: &email_index,
            email_lookup: &row.email_lookup,
        };
        found_user.email_hashes_are_authentic(&cipher)
    });
    Ok(row.map(|row| Candidate {
        user: row.user_id,
        active: row.active,
        password_hash: row.password_hash,
    }))
}

/// Reads a user's hash; `None` for a user without a password.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<Option<String>> {
    let hash = sqlx::query_scalar!(
        "select password_hash from credentials where tenant_id = $1 and user_id = $2",
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(hash)
}

/// Inserts or replaces a user's hash.
pub async fn set(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
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

/// Replaces the hash if the stored hash is still `verified_hash`. Returns whether the hash was
/// replaced.
pub async fn replace(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    verified_hash: &str,
    new_hash: &str,
) -> Result<bool> {
    let result = sqlx::query!(
        r#"
        update credentials set password_hash = $4, updated_at = now()
        where tenant_id = $1 and user_id = $2 and password_hash = $3
        "#,
        tenant.0,
        user.0,
        verified_hash,
        new_hash,
    )
    .execute(tx.conn())
    .await?;
    Ok(result.rows_affected() == 1)
}
