//! SQL for API keys.

use time::OffsetDateTime;

use crate::{
    api::{
        filter::Filter,
        paging::{LARGE_ROWS_PER_READ, Page, Position},
    },
    db::TenantTx,
    error::{Error, Result},
    ids::{ApiKeyId, SubjectId, TenantId},
    proto::v1::ApiKey,
    secrets::secret,
    sessions::EndedSessions,
};

/// A row of the table `api_keys`, without the secret's hash.
pub struct KeyRow {
    pub key_id: ApiKeyId,
    /// The service account of the key.
    pub account_id: SubjectId,
    pub name: String,
    /// The public key, in PEM; `None` for other kinds of keys.
    pub public_key: Option<String>,
    /// The name in a client certificate; `None` for other kinds of keys.
    pub certificate_name: Option<String>,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    /// Time of the last use, with a precision of a minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Time of the revocation. A value that equals `expires_at` does not mean that the key was
    /// revoked: [`delete_ended`] sets this value for an expired certificate key, so that a new key
    /// can have the same certificate name.
    pub revoked_at: Option<OffsetDateTime>,
    /// Whether the key has expired, by Postgres's clock.
    pub expired: bool,
}

impl KeyRow {
    /// Time of the revocation, if the key was revoked before it expired.
    #[must_use]
    pub fn revocation_time(&self) -> Option<OffsetDateTime> {
        self.revoked_at.filter(|revoked_at| *revoked_at < self.expires_at)
    }
}

/// A key to be inserted. Exactly one of the three credentials is set.
#[derive(Default)]
pub struct NewKey<'a> {
    pub name: &'a str,
    pub secret_hash: Option<Vec<u8>>,
    /// The public key, in PEM.
    pub public_key: Option<&'a str>,
    /// The name in a client certificate.
    pub certificate_name: Option<&'a str>,
}

/// Inserts a key.
///
/// # Errors
/// `ALREADY_EXISTS` when a key of the tenant that is not revoked has this certificate name.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
    new: &NewKey<'_>,
    expires_at: OffsetDateTime,
) -> Result<KeyRow> {
    let row = sqlx::query_as!(
        KeyRow,
        r#"
        insert into api_keys
            (tenant_id, key_id, account_id, name, secret_hash, public_key, certificate_name,
             expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        returning key_id as "key_id: ApiKeyId", account_id as "account_id: SubjectId", name,
                  public_key, certificate_name, created_at, expires_at, last_used_at, revoked_at,
                  expires_at <= now() as "expired!"
        "#,
        tenant.0,
        ApiKeyId::new().0,
        account.0,
        new.name,
        new.secret_hash,
        new.public_key,
        new.certificate_name,
        expires_at,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(row)
}

/// Reads a key of the tenant and locks its row until the transaction ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such key.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, key: ApiKeyId) -> Result<KeyRow> {
    sqlx::query_as!(
        KeyRow,
        r#"
        select key_id as "key_id: ApiKeyId", account_id as "account_id: SubjectId", name,
               public_key, certificate_name, created_at, expires_at, last_used_at, revoked_at,
               expires_at <= now() as "expired!"
        from api_keys
        where tenant_id = $1 and key_id = $2
        for no key update
        "#,
        tenant.0,
        key.0,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(Error::not_found)
}

/// Replaces the secret of a key. The transaction must have locked the row of the key, and the key
/// must never have been used.
pub async fn replace_secret(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: ApiKeyId,
    secret_hash: &[u8],
) -> Result<()> {
    sqlx::query!(
        "update api_keys set secret_hash = $3 where tenant_id = $1 and key_id = $2",
        tenant.0,
        key.0,
        secret_hash,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Counts the account's valid keys of the same kind as `new`: secret, public key or certificate
/// name. The transaction must have locked the row of the account.
pub async fn count_valid_of_kind(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
    new: &NewKey<'_>,
) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from api_keys
        where tenant_id = $1 and account_id = $2
          and (secret_hash is not null) = $3 and (public_key is not null) = $4
          and revoked_at is null and expires_at > now()
        "#,
        tenant.0,
        account.0,
        new.secret_hash.is_some(),
        new.public_key.is_some(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}

/// Prepares the insertion of a key. Deletes the account's keys that expired or were revoked more
/// than 90 days ago. Marks all expired certificate keys of the tenant as revoked, so
/// that new keys can have the same certificate names.
pub async fn delete_ended(tx: &mut TenantTx, tenant: TenantId, account: SubjectId) -> Result<()> {
    sqlx::query!(
        r#"
        delete from api_keys
        where tenant_id = $1 and account_id = $2
          and least(revoked_at, expires_at) < now() - interval '90 days'
        "#,
        tenant.0,
        account.0,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        r#"
        update api_keys set revoked_at = expires_at
        where tenant_id = $1 and certificate_name is not null
          and revoked_at is null and expires_at <= now()
        "#,
        tenant.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Fills a page with the account's keys whose name matches the filter, in order of id.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
    filter: &Filter,
    page: &mut Page<ApiKey>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
        let rows = sqlx::query_as!(
            KeyRow,
            r#"
            select key_id as "key_id: ApiKeyId", account_id as "account_id: SubjectId", name,
                   public_key, certificate_name, created_at, expires_at, last_used_at, revoked_at,
                   expires_at <= now() as "expired!"
            from api_keys
            where tenant_id = $1 and account_id = $2 and key_id > $3
            order by key_id
            limit $4
            "#,
            tenant.0,
            account.0,
            read.after_id(),
            read.limit,
        )
        .fetch_all(tx.conn())
        .await?;
        // `None` excludes a key whose name does not match.
        let to_item = |row: KeyRow| Ok(filter.matches_text(|_| &row.name).then(|| row.into()));
        page.add_rows(read.batch(rows), |row| Position::by_id(row.key_id.0), to_item).await?;
    }
    Ok(())
}

/// The ids of the account's valid keys.
pub async fn valid_ids(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
) -> Result<Vec<ApiKeyId>> {
    let keys = sqlx::query_scalar!(
        r#"
        select key_id as "key_id: ApiKeyId" from api_keys
        where tenant_id = $1 and account_id = $2 and revoked_at is null and expires_at > now()
        order by key_id
        "#,
        tenant.0,
        account.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(keys)
}

/// Finds the account of a key; `None` when the tenant has no such key. If `required_owner` is set,
/// the key must belong to this account.
pub async fn find_owner(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: ApiKeyId,
    required_owner: Option<SubjectId>,
) -> Result<Option<SubjectId>> {
    let account = sqlx::query_scalar!(
        r#"
        select account_id as "account_id: SubjectId" from api_keys
        where tenant_id = $1 and key_id = $2 and ($3::uuid is null or account_id = $3)
        "#,
        tenant.0,
        key.0,
        required_owner.map(|account| account.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(account)
}

/// Revokes a valid key. The tokens that were issued for the key become invalid. Returns `None`, and
/// changes nothing, when the key has expired or was revoked before.
pub async fn revoke(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: ApiKeyId,
) -> Result<Option<EndedSessions>> {
    let result = sqlx::query!(
        r#"
        update api_keys set revoked_at = clock_timestamp()
        where tenant_id = $1 and key_id = $2
          and revoked_at is null and expires_at > clock_timestamp()
        "#,
        tenant.0,
        key.0,
    )
    .execute(tx.conn())
    .await?;
    Ok((result.rows_affected() == 1).then(|| EndedSessions::in_tenant(tenant)))
}

/// Revokes all valid keys of a tenant. Returns the number of revoked keys.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn revoke_all(tx: &mut TenantTx, tenant: TenantId) -> Result<(u64, EndedSessions)> {
    let result = sqlx::query!(
        r#"
        update api_keys set revoked_at = clock_timestamp()
        where tenant_id = $1 and revoked_at is null and expires_at > clock_timestamp()
        "#,
        tenant.0,
    )
    .execute(tx.conn())
    .await?;
    Ok((result.rows_affected(), EndedSessions::in_tenant(tenant)))
}

/// A valid key, with the fields that are needed to exchange the key for an access token.
#[derive(Debug)]
pub struct LiveKey {
    pub key_id: ApiKeyId,
    /// The service account of the key.
    pub account_id: SubjectId,
    pub expires_at: OffsetDateTime,
    /// The public key, in PEM; empty for other kinds of keys.
    pub public_key: String,
}

/// Finds the valid key whose secret has this hash.
pub async fn by_secret(
    tx: &mut TenantTx,
    tenant: TenantId,
    secret_hash: &[u8],
) -> Result<Option<LiveKey>> {
    let live_key = sqlx::query_as!(
        LiveKey,
        r#"
        select key_id as "key_id: ApiKeyId", account_id as "account_id: SubjectId", expires_at,
               '' as "public_key!"
        from api_keys
        where tenant_id = $1 and secret_hash = $2 and revoked_at is null and expires_at > now()
        "#,
        tenant.0,
        secret_hash,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(live_key)
}

/// Finds the valid key with this id, if the key is a public key.
pub async fn by_id(tx: &mut TenantTx, tenant: TenantId, key: ApiKeyId) -> Result<Option<LiveKey>> {
    let live_key = sqlx::query_as!(
        LiveKey,
        r#"
        select key_id as "key_id: ApiKeyId", account_id as "account_id: SubjectId", expires_at,
               public_key as "public_key!"
        from api_keys
        where tenant_id = $1 and key_id = $2 and public_key is not null
          and revoked_at is null and expires_at > now()
        "#,
        tenant.0,
        key.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(live_key)
}

/// Finds the valid key with one of a certificate's names. If `account` is set, only the keys of
/// this account are searched. Returns `None` when several keys match, because the choice would be
/// ambiguous.
pub async fn by_certificate(
    tx: &mut TenantTx,
    tenant: TenantId,
    names: &[String],
    account: Option<SubjectId>,
) -> Result<Option<LiveKey>> {
    let mut keys = sqlx::query_as!(
        LiveKey,
        r#"
        select key_id as "key_id: ApiKeyId", account_id as "account_id: SubjectId", expires_at,
               '' as "public_key!"
        from api_keys
        where tenant_id = $1 and certificate_name = any ($2)
          and ($3::uuid is null or account_id = $3)
          and revoked_at is null and expires_at > now()
        limit 2
        "#,
        tenant.0,
        names,
        account.map(|account| account.0),
    )
    .fetch_all(tx.conn())
    .await?;
    // With two rows, several keys match.
    let last_key = keys.pop();
    Ok(last_key.filter(|_| keys.is_empty()))
}

/// Records the use of a key, at most once per minute, so that frequent use does not cause frequent
/// writes.
pub async fn record_use(tx: &mut TenantTx, tenant: TenantId, key: ApiKeyId) -> Result<()> {
    sqlx::query!(
        r#"
        update api_keys set last_used_at = now()
        where tenant_id = $1 and key_id = $2
          and (last_used_at is null or last_used_at < now() - interval '1 minute')
        "#,
        tenant.0,
        key.0,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Marks an assertion as used. Returns false when the assertion was used before. `expires_at` is
/// the expiry of the assertion plus the clock leeway, in seconds since 1970. The mark is kept for
/// one more minute. After this time, the next call for the same key deletes the mark.
pub async fn mark_used(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: ApiKeyId,
    jti: &str,
    expires_at: i64,
) -> Result<bool> {
    sqlx::query!(
        "delete from spent_assertions where tenant_id = $1 and key_id = $2 and expires_at < now()",
        tenant.0,
        key.0,
    )
    .execute(tx.conn())
    .await?;
    let result = sqlx::query!(
        r#"
        insert into spent_assertions (tenant_id, key_id, jti_hash, expires_at)
        values ($1, $2, $3, to_timestamp($4::bigint) + interval '1 minute')
        on conflict do nothing
        "#,
        tenant.0,
        key.0,
        secret::hash(jti.as_bytes()),
        expires_at,
    )
    .execute(tx.conn())
    .await?;
    Ok(result.rows_affected() == 1)
}
