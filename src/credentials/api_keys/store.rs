//! API keys in Postgres.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    api::{
        filter::Filter,
        paging::{LARGE_ROWS, Page, Position},
    },
    db::TenantTx,
    error::{Error, Result},
    ids::{ApiKeyId, TenantId, UserId},
    proto::v1::ApiKey,
    secrets::secret,
};

/// A key as it is shown.
pub struct KeyRow {
    /// The key.
    pub key_id: Uuid,
    /// Whose it is.
    pub account_id: Uuid,
    /// What people know it by.
    pub name: String,
    /// A public key, in PEM.
    pub public_key: Option<String>,
    /// A name in a client's certificate.
    pub certificate_name: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked. From `expires_at` on nobody revokes it: a certificate's name is
    /// set free then.
    pub revoked_at: Option<OffsetDateTime>,
    /// Whether its time is over, by Postgres's clock.
    pub expired: bool,
}

impl KeyRow {
    /// When it was revoked, if it was before its time was over.
    #[must_use]
    pub fn revoked(&self) -> Option<OffsetDateTime> {
        self.revoked_at.filter(|at| *at < self.expires_at)
    }
}

/// A key to write; one of its three proofs is there.
#[derive(Default)]
pub struct NewKey<'a> {
    /// What people know it by.
    pub name: &'a str,
    /// The hash of a secret.
    pub secret_hash: Option<Vec<u8>>,
    /// A public key, in PEM.
    pub public_key: Option<&'a str>,
    /// A name in a client's certificate.
    pub certificate_name: Option<&'a str>,
}

/// Writes a key.
///
/// # Errors
/// `ALREADY_EXISTS` when the tenant has one with this certificate name.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: UserId,
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
        returning key_id, account_id, name, public_key, certificate_name, created_at,
                  expires_at, last_used_at, revoked_at, expires_at <= now() as "expired!"
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

/// A key of the tenant, locked until the transaction ends.
///
/// # Errors
/// `NOT_FOUND` when the tenant has no such key.
pub async fn lock(tx: &mut TenantTx, tenant: TenantId, key: ApiKeyId) -> Result<KeyRow> {
    sqlx::query_as!(
        KeyRow,
        r#"
        select key_id, account_id, name, public_key, certificate_name, created_at,
               expires_at, last_used_at, revoked_at, expires_at <= now() as "expired!"
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

/// Gives a locked key that was never used another secret.
pub async fn replace_secret(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: Uuid,
    secret_hash: &[u8],
) -> Result<()> {
    sqlx::query!(
        "update api_keys set secret_hash = $3 where tenant_id = $1 and key_id = $2",
        tenant.0,
        key,
        secret_hash,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How many keys with such a proof a locked account has in force.
pub async fn count_like(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: UserId,
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

/// Takes out of the way of a new key what has ended: for good what ended long ago, and
/// as the holder of its name a certificate whose time is over.
pub async fn tidy(tx: &mut TenantTx, tenant: TenantId, account: UserId) -> Result<()> {
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

/// Fills a page with those of an account's keys whose name the filter takes, by id.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: UserId,
    filter: &Filter,
    page: &mut Page<ApiKey>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS) {
        let rows = sqlx::query_as!(
            KeyRow,
            r#"
            select key_id, account_id, name, public_key, certificate_name, created_at,
                   expires_at, last_used_at, revoked_at, expires_at <= now() as "expired!"
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
        let show = |row: KeyRow| Ok(filter.matches(|_| &row.name).then(|| row.into()));
        page.take(read.found(rows), |row| Position::of(row.key_id), show).await?;
    }
    Ok(())
}

/// The ids of an account's keys in force.
pub async fn in_force(tx: &mut TenantTx, tenant: TenantId, account: UserId) -> Result<Vec<Uuid>> {
    let keys = sqlx::query_scalar!(
        r#"
        select key_id from api_keys
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

/// Whose a key of the tenant is; with `owner`, only if it is that account's.
pub async fn owner(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: ApiKeyId,
    owner: Option<UserId>,
) -> Result<Option<UserId>> {
    let account = sqlx::query_scalar!(
        r#"
        select account_id from api_keys
        where tenant_id = $1 and key_id = $2 and ($3::uuid is null or account_id = $3)
        "#,
        tenant.0,
        key.0,
        owner.map(|id| id.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(account.map(UserId))
}

/// Revokes a key; says whether it was in force until now. One that was not stays
/// as it is.
pub async fn revoke(tx: &mut TenantTx, tenant: TenantId, key: ApiKeyId) -> Result<bool> {
    let done = sqlx::query!(
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
    Ok(done.rows_affected() == 1)
}

/// A key in force, as whoever presents its proof needs it.
#[derive(Debug)]
pub struct LiveKey {
    /// The key.
    pub key_id: Uuid,
    /// Whose it is.
    pub account_id: Uuid,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// A public key, in PEM; empty where it is none.
    pub public_key: String,
}

/// The key in force with this secret.
pub async fn by_secret(
    tx: &mut TenantTx,
    tenant: TenantId,
    secret_hash: &[u8],
) -> Result<Option<LiveKey>> {
    let found = sqlx::query_as!(
        LiveKey,
        r#"
        select key_id, account_id, expires_at, '' as "public_key!" from api_keys
        where tenant_id = $1 and secret_hash = $2 and revoked_at is null and expires_at > now()
        "#,
        tenant.0,
        secret_hash,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found)
}

/// The public key in force with this id.
pub async fn by_id(tx: &mut TenantTx, tenant: TenantId, key: Uuid) -> Result<Option<LiveKey>> {
    let found = sqlx::query_as!(
        LiveKey,
        r#"
        select key_id, account_id, expires_at, public_key as "public_key!" from api_keys
        where tenant_id = $1 and key_id = $2 and public_key is not null
          and revoked_at is null and expires_at > now()
        "#,
        tenant.0,
        key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found)
}

/// The key in force that one of a certificate's names is, of an account where one is
/// named; `None` where several are, as nothing says which is meant.
pub async fn by_certificate(
    tx: &mut TenantTx,
    tenant: TenantId,
    names: &[String],
    account: Option<UserId>,
) -> Result<Option<LiveKey>> {
    let mut found = sqlx::query_as!(
        LiveKey,
        r#"
        select key_id, account_id, expires_at, '' as "public_key!" from api_keys
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
    Ok(found.pop().filter(|_| found.is_empty()))
}

/// Notes that a key is used, to the minute: those that are used all the time are not
/// written all the time.
pub async fn touch(tx: &mut TenantTx, tenant: TenantId, key: Uuid) -> Result<()> {
    sqlx::query!(
        r#"
        update api_keys set last_used_at = now()
        where tenant_id = $1 and key_id = $2
          and (last_used_at is null or last_used_at < now() - interval '1 minute')
        "#,
        tenant.0,
        key,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Spends an assertion of a key; says whether it was not spent before. `ends_at` is in
/// seconds since 1970: after it the assertion counts no more anyway.
pub async fn spend(
    tx: &mut TenantTx,
    tenant: TenantId,
    key: Uuid,
    jti: &str,
    ends_at: i64,
) -> Result<bool> {
    sqlx::query!(
        "delete from spent_assertions where tenant_id = $1 and key_id = $2 and expires_at < now()",
        tenant.0,
        key,
    )
    .execute(tx.conn())
    .await?;
    let done = sqlx::query!(
        r#"
        insert into spent_assertions (tenant_id, key_id, jti_hash, expires_at)
        values ($1, $2, $3, to_timestamp($4::bigint) + interval '1 minute')
        on conflict do nothing
        "#,
        tenant.0,
        key,
        secret::hash(jti.as_bytes()),
        ends_at,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}
