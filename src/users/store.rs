//! SQL for users. Emails and names are sealed, so users are found by keyed hashes of their emails.
//!
//! Rule: `keep_subject` (`migrations/0007_users.sql`) inserts a subject for each user and each
//! service account, and deletes the subject with the user or the service account (triggers).

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::UserState;
use crate::{
    db::TenantTx,
    email,
    error::{Error, Result},
    ids::{SubjectId, TenantId},
    privacy::{Cipher, Index, SealContext, bound_row_bytes},
    sessions::{self, EndedSessions},
};

/// The version of a new row.
const FIRST_VERSION: i64 = 1;

/// A user, with the opened email and name.
#[derive(Clone)]
pub struct UserRow {
    pub tenant_id: TenantId,
    pub user_id: SubjectId,
    /// The email as the user wrote it.
    pub email: String,
    pub display_name: String,
    pub state: UserState,
    /// Whether the user has proved control of the email address.
    pub email_verified: bool,
    /// Incremented with each change; the source of the etag.
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub last_sign_in_at: Option<OffsetDateTime>,
    /// Whether the email and the name are missing because the sealed value was altered.
    pub unreadable: bool,
}

/// A row of `users`, with the sealed profile.
pub(super) struct SealedUserRow {
    pub(super) tenant_id: TenantId,
    pub(super) user_id: SubjectId,
    pub(super) profile: Vec<u8>,
    /// The hash of the email with the tenant's key, for lookups in the tenant.
    pub(super) email_index: Vec<u8>,
    /// The hash of the email with the common key, for lookups across tenants.
    pub(super) email_lookup: Vec<u8>,
    pub(super) state: UserState,
    pub(super) email_verified: bool,
    pub(super) version: i64,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
    pub(super) last_sign_in_at: Option<OffsetDateTime>,
}

/// The sealed part of a user.
#[derive(Serialize, Deserialize)]
struct Profile {
    email: String,
    display_name: String,
}

/// The sealed columns for an email and a name.
struct SealedColumns {
    profile: Vec<u8>,
    email_index: Index,
    email_lookup: Index,
}

impl SealedUserRow {
    pub(super) fn open(self, cipher: &Cipher) -> Result<UserRow> {
        let row =
            profile_context(self.user_id, self.version, &self.email_index, &self.email_lookup);
        let context = SealContext { table: "users", row: &row };
        let profile: Profile = cipher.open_json(context, &self.profile)?;
        Ok(UserRow {
            email: profile.email,
            display_name: profile.display_name,
            unreadable: false,
            ..self.without_profile()
        })
    }

    /// The user without the sealed profile, marked as unreadable.
    pub(super) fn without_profile(&self) -> UserRow {
        UserRow {
            tenant_id: self.tenant_id,
            user_id: self.user_id,
            email: String::new(),
            display_name: String::new(),
            state: self.state,
            email_verified: self.email_verified,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            last_sign_in_at: self.last_sign_in_at,
            unreadable: true,
        }
    }
}

/// The `row` bytes of the [`SealContext`] of a profile. A profile does not open for another version
/// of the row, so an older profile can't be restored. It does not open with other hashes of the
/// email, so the hashes can't be moved to another user.
fn profile_context(
    user: SubjectId,
    version: i64,
    email_index: &[u8],
    email_lookup: &[u8],
) -> Vec<u8> {
    bound_row_bytes(&user.0, &[&version.to_be_bytes(), email_index, email_lookup])
}

/// A user that a sign-in found by the hash of an email.
pub struct UserByEmail<'a> {
    pub user: SubjectId,
    pub version: i64,
    /// The sealed profile.
    pub profile: &'a [u8],
    /// The hash of the email with the tenant's key. The user was found by this hash.
    pub email_index: &'a [u8],
    /// The hash of the email with the common key, for lookups across tenants.
    pub email_lookup: &'a [u8],
}

impl UserByEmail<'_> {
    /// Whether the email hashes are authentic: the sealed profile proves that they belong to this
    /// user and were not copied from another row.
    #[must_use]
    pub fn email_hashes_are_authentic(&self, cipher: &Cipher) -> bool {
        let row = profile_context(self.user, self.version, self.email_index, self.email_lookup);
        cipher.open(SealContext { table: "users", row: &row }, self.profile).is_ok()
    }
}

impl SealedColumns {
    /// Seals a profile for this version of the row.
    fn new(
        tx: &TenantTx,
        cipher: &Cipher,
        user: SubjectId,
        version: i64,
        profile: &Profile,
    ) -> Result<Self> {
        let normalized_email = email::normalized(&profile.email);
        let email_index = email::blind_index(cipher, &normalized_email);
        let email_lookup = email::blind_index(&*tx.common_cipher()?, &normalized_email);
        let row = profile_context(user, version, &email_index, &email_lookup);
        let profile = cipher.seal_json(SealContext { table: "users", row: &row }, profile)?;
        Ok(Self { profile, email_index, email_lookup })
    }
}

/// Inserts a user.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has a user with this email.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    email: &str,
    display_name: &str,
) -> Result<UserRow> {
    let cipher = tx.cipher(tenant)?;
    let profile = Profile { email: email.to_owned(), display_name: display_name.to_owned() };
    let sealed = SealedColumns::new(tx, &cipher, user, FIRST_VERSION, &profile)?;
    let row = sqlx::query_as!(
        SealedUserRow,
        r#"
        insert into users (tenant_id, user_id, profile, email_index, email_lookup)
        values ($1, $2, $3, $4, $5)
        returning tenant_id as "tenant_id: TenantId", user_id as "user_id: SubjectId",
                  profile, email_index, email_lookup,
                  state as "state: UserState", email_verified, version, created_at, updated_at,
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

/// Reads a user of the tenant.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn get(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<UserRow> {
    let cipher = tx.cipher(tenant)?;
    let row = sqlx::query_as!(
        SealedUserRow,
        r#"
        select tenant_id as "tenant_id: TenantId", user_id as "user_id: SubjectId",
               profile, email_index, email_lookup,
               state as "state: UserState", email_verified, version, created_at, updated_at,
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

/// Reads a user of the tenant and locks its row until the transaction ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<UserRow> {
    let cipher = tx.cipher(tenant)?;
    let row = sqlx::query_as!(
        SealedUserRow,
        r#"
        select tenant_id as "tenant_id: TenantId", user_id as "user_id: SubjectId",
               profile, email_index, email_lookup,
               state as "state: UserState", email_verified, version, created_at, updated_at,
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

/// Locks a user like [`lock`], and returns the version of the row. Does not open the sealed values,
/// so it works for an unreadable row too.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such user.
pub async fn lock_version(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<i64> {
    let version = sqlx::query_scalar!(
        "select version from users where tenant_id = $1 and user_id = $2 for no key update",
        tenant.0,
        user.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    version.ok_or_else(Error::not_found)
}

/// Whether the tenant has the user.
pub async fn exists(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select from users where tenant_id = $1 and user_id = $2) as "found!""#,
        tenant.0,
        user.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(exists)
}

/// Finds the tenant's user with an email. Upper and lower case are not distinguished.
pub async fn find_by_email(
    tx: &mut TenantTx,
    tenant: TenantId,
    email: &str,
) -> Result<Option<UserRow>> {
    let cipher = tx.cipher(tenant)?;
    let email_index = email::blind_index(&cipher, &email::normalized(email));
    let row = sqlx::query_as!(
        SealedUserRow,
        r#"
        select tenant_id as "tenant_id: TenantId", user_id as "user_id: SubjectId",
               profile, email_index, email_lookup,
               state as "state: UserState", email_verified, version, created_at, updated_at,
               nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        from users where tenant_id = $1 and email_index = $2
        "#,
        tenant.0,
        email_index.as_slice(),
    )
    .fetch_optional(tx.conn())
    .await?;
    row.map(|row| row.open(&cipher)).transpose()
}

/// Updates a user whose row the transaction has locked with [`lock`].
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has another user with the new email.
pub async fn update(tx: &mut TenantTx, new_row: &UserRow) -> Result<UserRow> {
    let cipher = tx.cipher(new_row.tenant_id)?;
    let profile =
        Profile { email: new_row.email.clone(), display_name: new_row.display_name.clone() };
    let next_version = new_row.version + 1;
    let sealed = SealedColumns::new(tx, &cipher, new_row.user_id, next_version, &profile)?;
    let row = sqlx::query_as!(
        SealedUserRow,
        r#"
        update users
        set profile = $3, email_index = $4, email_lookup = $5, state = $6, email_verified = $7,
            version = $8::bigint, updated_at = now()
        where tenant_id = $1 and user_id = $2 and version = $8::bigint - 1
        returning tenant_id as "tenant_id: TenantId", user_id as "user_id: SubjectId",
                  profile, email_index, email_lookup,
                  state as "state: UserState", email_verified, version, created_at, updated_at,
                  nullif(last_sign_in_at, '-infinity') as last_sign_in_at
        "#,
        new_row.tenant_id.0,
        new_row.user_id.0,
        sealed.profile,
        sealed.email_index.as_slice(),
        sealed.email_lookup.as_slice(),
        new_row.state.as_str(),
        new_row.email_verified,
        next_version,
    )
    .fetch_one(tx.conn())
    .await?;
    row.open(&cipher)
}

/// Disables a user, whose row the transaction has locked with [`lock`], and revokes the user's
/// sessions. Returns the new row and the number of revoked sessions.
pub async fn disable(tx: &mut TenantTx, mut row: UserRow) -> Result<(UserRow, u64, EndedSessions)> {
    row.state = UserState::Disabled;
    let row = update(tx, &row).await?;
    let (tenant, user) = (row.tenant_id, row.user_id);
    let except = None;
    let (count, ended_sessions) =
        sessions::store::revoke_all(tx, tenant, user, except, "user_disabled").await?;
    Ok((row, count, ended_sessions))
}

/// Enables a user whose row the transaction has locked with [`lock`].
pub async fn enable(tx: &mut TenantTx, mut row: UserRow) -> Result<UserRow> {
    row.state = UserState::Active;
    update(tx, &row).await
}

/// Deletes a user, whose row the transaction has locked with [`lock_version`], and the user's
/// credentials, sessions and assignments.
pub async fn delete(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<EndedSessions> {
    sqlx::query!("delete from users where tenant_id = $1 and user_id = $2", tenant.0, user.0)
        .execute(tx.conn())
        .await?;
    Ok(EndedSessions::in_tenant(tenant))
}
