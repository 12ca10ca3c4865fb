//! Users in Postgres. Their emails and names are sealed there, and found by keyed
//! hashes.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::email;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{TenantId, UserId},
    privacy::{Cipher, Index, Place},
    proto::v1::UserState,
};

/// A user.
#[derive(Clone)]
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
    /// When the user last signed in.
    pub last_sign_in_at: Option<OffsetDateTime>,
}

/// A user as it is kept.
pub(super) struct Kept {
    pub(super) tenant_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) profile: Vec<u8>,
    pub(super) state: String,
    pub(super) email_verified: bool,
    pub(super) version: i64,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
    pub(super) last_sign_in_at: Option<OffsetDateTime>,
}

/// What is sealed of a user.
#[derive(Serialize, Deserialize)]
struct Profile {
    email: String,
    display_name: String,
}

/// What is written of an email and a name.
struct Sealed {
    profile: Vec<u8>,
    email_index: Index,
    email_lookup: Index,
}

impl Kept {
    pub(super) fn open(self, cipher: &Cipher) -> Result<UserRow> {
        let profile: Profile =
            cipher.open_parts(Place::row("users", &self.user_id), &self.profile)?;
        Ok(UserRow {
            tenant_id: self.tenant_id,
            user_id: self.user_id,
            email: profile.email,
            display_name: profile.display_name,
            state: self.state,
            email_verified: self.email_verified,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            last_sign_in_at: self.last_sign_in_at,
        })
    }
}

impl Sealed {
    fn new(tx: &TenantTx, cipher: &Cipher, user: Uuid, profile: &Profile) -> Result<Self> {
        let key = email::key(&profile.email);
        Ok(Self {
            profile: cipher.seal_parts(Place::row("users", &user), profile)?,
            email_index: email::index(cipher, &key),
            email_lookup: email::index(&*tx.common_cipher()?, &key),
        })
    }
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
    let cipher = tx.cipher(tenant).await?;
    let profile = Profile { email: email.to_owned(), display_name: display_name.to_owned() };
    let sealed = Sealed::new(tx, &cipher, user.0, &profile)?;
    let row = sqlx::query_as!(
        Kept,
        r#"
        insert into users (tenant_id, user_id, profile, email_index, email_lookup)
        values ($1, $2, $3, $4, $5)
        returning tenant_id, user_id, profile, state, email_verified, version,
                  created_at, updated_at,
                  nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        "#,
        tenant.0,
        user.0,
        sealed.profile,
        sealed.email_index.as_slice(),
        sealed.email_lookup.as_slice(),
    )
    .fetch_one(tx.conn())
    .await?;
    row.open(&cipher)
}

/// A user of the tenant.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<UserRow> {
    let cipher = tx.cipher(tenant).await?;
    let row = sqlx::query_as!(
        Kept,
        r#"
        select tenant_id, user_id, profile, state, email_verified, version,
               created_at, updated_at,
               nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        from users where tenant_id = $1 and user_id = $2
        "#,
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    row.ok_or_else(Error::not_found)?.open(&cipher)
}

/// A user of the tenant, locked against other changes until the transaction
/// ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, user: UserId) -> Result<UserRow> {
    let cipher = tx.cipher(tenant).await?;
    let row = sqlx::query_as!(
        Kept,
        r#"
        select tenant_id, user_id, profile, state, email_verified, version,
               created_at, updated_at,
               nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        from users where tenant_id = $1 and user_id = $2
        for no key update
        "#,
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    row.ok_or_else(Error::not_found)?.open(&cipher)
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
    let cipher = tx.cipher(tenant).await?;
    let index = email::index(&cipher, &email::key(email));
    let row = sqlx::query_as!(
        Kept,
        r#"
        select tenant_id, user_id, profile, state, email_verified, version,
               created_at, updated_at,
               nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        from users where tenant_id = $1 and email_index = $2
        "#,
        tenant.0,
        index.as_slice(),
    )
    .fetch_optional(tx.conn())
    .await?;
    row.map(|row| row.open(&cipher)).transpose()
}

/// Writes what has changed of a locked user.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has another user with the new email.
pub async fn update(tx: &mut TenantTx, changed: &UserRow) -> Result<UserRow> {
    let cipher = tx.cipher(TenantId(changed.tenant_id)).await?;
    let profile =
        Profile { email: changed.email.clone(), display_name: changed.display_name.clone() };
    let sealed = Sealed::new(tx, &cipher, changed.user_id, &profile)?;
    let row = sqlx::query_as!(
        Kept,
        r#"
        update users
        set profile = $3, email_index = $4, email_lookup = $5, state = $6, email_verified = $7,
            version = version + 1, updated_at = now()
        where tenant_id = $1 and user_id = $2
        returning tenant_id, user_id, profile, state, email_verified, version,
                  created_at, updated_at,
                  nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        "#,
        changed.tenant_id,
        changed.user_id,
        sealed.profile,
        sealed.email_index.as_slice(),
        sealed.email_lookup.as_slice(),
        changed.state,
        changed.email_verified,
    )
    .fetch_one(tx.conn())
    .await?;
    row.open(&cipher)
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
