//! Creates the tenants that exist before anybody can sign in: the platform tenant with its first
//! administrator, and the demo tenant. Also sets passwords for operators, and records the events of
//! commands.

use anyhow::{Context, ensure};
use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::{
    audit::{self, Actor, CorrelationId, Event, EventKind, Origin},
    credentials::password,
    db::{Db, TenantTx},
    error::Result,
    ids::{RoleId, SubjectId, TenantId},
    limits::WorkOwner,
    passwords::{self, Hasher, PasswordPolicy},
    roles::{self, system},
    sessions,
    tenants::{self, create::NewTenant},
    users::{self, UserState},
};

/// The slug of the platform tenant.
pub const PLATFORM: &str = "platform";
/// The slug of the demo tenant.
pub const DEMO: &str = "demo";

/// Permissions of the administrator of the demo tenant. `*:*` includes the other two permissions.
/// These two are examples of permissions that a client can check.
const DEMO_PERMISSIONS: &[&str] = &["*:*", "agent:manage", "workflow:execute"];

/// The credentials of an administrator.
#[derive(Serialize)]
pub struct Credentials {
    /// The tenant's slug.
    pub tenant: String,
    pub email: String,
    /// The generated password.
    pub password: String,
}

/// Creates the platform tenant and its first administrator; `None` when the tenant exists
/// already.
///
/// # Errors
/// Fails when `owner_db` is not connected as the schema's owner, or when Postgres is unavailable.
pub async fn create_platform_tenant(
    owner_db: &Db,
    hasher: &Hasher,
    email: &str,
) -> anyhow::Result<Option<Credentials>> {
    if tenants::find(owner_db, TenantId::UNKNOWN, PLATFORM).await?.is_some() {
        return Ok(None);
    }
    let (password, hash) = new_password(hasher).await?;
    let id = TenantId::new();
    let data_key = owner_db.generate_data_key(id).await?;
    let mut tx = owner_db.begin_without_cipher(id).await?;
    sqlx::query!(
        r#"
        insert into tenants (tenant_id, name, slug, is_platform)
        values ($1, 'Platform', 'platform', true)
        "#,
        id.0,
    )
    .execute(tx.conn())
    .await
    .context("can't make the platform tenant; is this the schema's owner?")?;
    tx.insert_data_key(&data_key).await?;
    let admin_role = system::create(&mut tx, id, system::PLATFORM).await?;
    add_administrator(tx, id, admin_role, email, &hash).await?;
    Ok(Some(credentials(PLATFORM, email, &password)))
}

/// Creates the demo tenant and its administrator; `None` when the tenant exists already.
///
/// # Errors
/// Fails when Postgres is unavailable.
pub async fn create_demo_tenant(
    db: &Db,
    hasher: &Hasher,
    email: &str,
) -> anyhow::Result<Option<Credentials>> {
    if tenants::find(db, TenantId::UNKNOWN, DEMO).await?.is_some() {
        return Ok(None);
    }
    let (password, hash) = new_password(hasher).await?;
    let id = TenantId::new();
    let data_key = db.generate_data_key(id).await?;
    let mut tx = db.begin_without_cipher(id).await?;
    let new_tenant = NewTenant {
        id,
        name: "Demo",
        slug: DEMO,
        settings: serde_json::Map::new(),
        password_policy: PasswordPolicy::default(),
        data_key: &data_key,
    };
    let admin_role = tenants::create::create(&mut tx, new_tenant).await?;
    let mut role = roles::store::lock(&mut tx, id, admin_role).await?;
    role.permissions = DEMO_PERMISSIONS.iter().map(|p| (*p).to_owned()).collect();
    roles::store::update(&mut tx, &role).await?;
    add_administrator(tx, id, admin_role, email, &hash).await?;
    Ok(Some(credentials(DEMO, email, &password)))
}

/// A new password for a user.
pub struct PasswordReset<'a> {
    /// The slug of the user's tenant.
    pub slug: &'a str,
    pub email: &'a str,
    /// The new password; `None` to generate one.
    pub password: Option<SecretString>,
    /// Whether to enable the user if the user is disabled.
    pub enable: bool,
}

/// The result of a [`PasswordReset`].
pub struct PasswordResetDone {
    pub credentials: Credentials,
    /// Number of the user's sessions that ended.
    pub ended_sessions: u64,
    /// Whether the user was disabled before, and is enabled now.
    pub was_enabled: bool,
}

/// Sets a new password for a user, and ends the user's sessions.
///
/// # Errors
/// Fails when the tenant or the user does not exist, when the user is disabled and `enable`
/// is false, when a rule for passwords refuses the password, or when Postgres is unavailable.
pub async fn reset_password(
    db: &Db,
    hasher: &Hasher,
    policy: PasswordPolicy,
    reset: PasswordReset<'_>,
) -> anyhow::Result<PasswordResetDone> {
    let PasswordReset { slug, email, password, enable } = reset;
    let tenant =
        tenants::find(db, TenantId::UNKNOWN, slug).await?.context("there is no such tenant")?.id;
    let mut tx = db.begin(tenant).await?;
    let tenant_row = tenants::store::get(&mut tx, tenant).await?;
    let user = users::store::find_by_email(&mut tx, tenant, email).await?;
    let user = user.context("there is no such user")?.user_id;
    // No connection is held while a password is hashed.
    drop(tx);
    let (password, hash) = match password {
        None => new_password(hasher).await?,
        Some(password) => {
            let password = passwords::normalise(password.expose_secret());
            tenants::check_password(&tenant_row, policy, "the password", &password, email)?;
            let hash = hash(hasher, password.clone()).await?;
            (password, hash)
        }
    };
    let mut tx = db.begin(tenant).await?;
    let row = users::store::lock(&mut tx, tenant, user).await?;
    let was_disabled = row.state == UserState::Disabled;
    ensure!(enable || !was_disabled, "the user is disabled: add --enable to enable the user");
    if was_disabled {
        users::store::enable(&mut tx, row).await?;
        let event = Event::new(EventKind::UserEnabled).target(user.0).detail("by", "command");
        audit::record(&mut tx, &operator(), event).await?;
    }
    password::set(&mut tx, tenant, user, &hash).await?;
    let except_session = None;
    let (count, ended_sessions) =
        sessions::store::revoke_all(&mut tx, tenant, user, except_session, "password_reset")
            .await?;
    let event = Event::new(EventKind::PasswordReset).target(user.0);
    let event = event.detail("by", "command").detail("sessions_revoked", count);
    audit::record(&mut tx, &operator(), event).await?;
    tx.commit().await?;
    // Commands do not use the session cache in Redis. Its entries expire within a second.
    ended_sessions.expire_in_cache();
    let credentials = credentials(slug, email, &password);
    Ok(PasswordResetDone { credentials, ended_sessions: count, was_enabled: was_disabled })
}

/// Records in the platform tenant's audit trail that data keys were wrapped by another master
/// key. Does nothing if there is no platform tenant.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn record_rewrapped(db: &Db, master_key: &str, count: u64) -> Result<()> {
    let Some(platform) = tenants::find(db, TenantId::UNKNOWN, PLATFORM).await? else {
        return Ok(());
    };
    let event = Event::new(EventKind::DataKeysRewrapped);
    let event = event.detail("master_key", master_key).detail("count", count);
    audit::record_in_own_transaction(db, platform.id, &operator(), event).await
}

/// Records the creation of the tenant, creates its administrator and commits.
async fn add_administrator(
    mut tx: TenantTx,
    tenant: TenantId,
    admin_role: RoleId,
    email: &str,
    password_hash: &str,
) -> Result<()> {
    let row = tenants::store::get(&mut tx, tenant).await?;
    let event = Event::new(EventKind::TenantCreated).target(tenant.0).detail("by", "command");
    let event = tenants::audited::with_tenant(event, &row);
    audit::record(&mut tx, &operator(), event).await?;

    let user = SubjectId::new();
    users::store::insert(&mut tx, tenant, user, email, "Administrator").await?;
    password::set(&mut tx, tenant, user, password_hash).await?;
    let assignment = roles::assign_new(&mut tx, tenant, user, admin_role).await?;
    let event = Event::new(EventKind::UserCreated).target(user.0).detail("by", "command");
    let event = event.list("fields", ["email", "display_name", "password"]);
    let event = roles::audited::with_assignment(event, &assignment);
    audit::record(&mut tx, &operator(), event).await?;
    tx.commit().await
}

fn credentials(slug: &str, email: &str, password: &SecretString) -> Credentials {
    Credentials {
        tenant: slug.to_owned(),
        email: email.to_owned(),
        password: password.expose_secret().to_owned(),
    }
}

/// A random secret of 144 bits, in base64url.
///
/// # Errors
/// Fails when the operating system provides no random bytes.
pub fn random_secret() -> anyhow::Result<SecretString> {
    let mut bytes = [0; 18];
    rand::fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the operating system provides no random bytes"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes).into())
}

async fn new_password(hasher: &Hasher) -> anyhow::Result<(SecretString, String)> {
    let password = random_secret()?;
    let hash = hash(hasher, password.clone()).await?;
    Ok((password, hash))
}

async fn hash(hasher: &Hasher, password: SecretString) -> Result<String> {
    hasher.take_slot(WorkOwner::new(TenantId::UNKNOWN, None))?.hash(password).await
}

/// The actor of events that a command records.
pub(super) fn operator() -> Actor {
    Actor::anonymous(&Origin { correlation_id: CorrelationId::Command, ip: None, user_agent: None })
}
