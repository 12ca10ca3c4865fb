//! The command `tenantry dev`: starts the stores, creates the keys and tenants that do not exist
//! yet, and serves.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};
use tracing_appender::non_blocking::NonBlocking;

use super::{
    bootstrap,
    connect::open,
    provision::{self, Credentials, PasswordReset},
    serve,
};
use crate::{
    app::App,
    config::{self, Config, Values},
    dev::{Options, Services},
    pg, privacy,
    secrets::files,
    server::{self, Listeners},
    telemetry,
    tokens::pem,
};

const DATABASE: &str = "tenantry";
const PLATFORM_EMAIL: &str = "admin@platform.local";

/// Starts a private Postgres and Redis unless the URLs of both are set, serves until a signal, and
/// stops the private Postgres and Redis.
pub(super) async fn run(mut values: Values) -> anyhow::Result<()> {
    let _log_guard = telemetry::init(&values)?;
    let (mut out, _stdout_guard) = telemetry::non_blocking_writer(io::stdout());
    let stop = serve::stop_signal()?;
    let dir = PathBuf::from(values.get("DEV_DIR").context("DEV_DIR must be set")?);
    let services = start_services(&values, &dir, &mut out).await?;
    let serving = set_up_and_serve(&mut values, &dir, services.as_ref(), &mut out, stop);
    let result = Box::pin(serving).await;
    if let Some(services) = services {
        services.stop().await?;
    }
    result
}

/// Starts a private Postgres and Redis. Returns `None` when the settings have the URLs of both
/// stores.
async fn start_services(
    values: &Values,
    dir: &Path,
    out: &mut NonBlocking,
) -> anyhow::Result<Option<Services>> {
    if values.get("DATABASE_URL").is_some() && values.get("REDIS_URL").is_some() {
        fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
        return Ok(None);
    }
    writeln!(out, "starting a private Postgres and Redis in {}", dir.display())?;
    let services = Services::start(dir, Options { durable: true }).await?;
    for note in services.notes() {
        writeln!(out, "{note}")?;
    }
    writeln!(out, "Postgres is {}", services.postgres_url("postgres", DATABASE))?;
    writeln!(out, "Redis is {}", services.redis_url())?;
    Ok(Some(services))
}

/// Sets the missing settings, creates the missing tenants, and serves until `stop` completes.
async fn set_up_and_serve(
    values: &mut Values,
    dir: &Path,
    services: Option<&Services>,
    out: &mut NonBlocking,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let owner_url = set_store_urls(values, dir, services).await?;
    set_signing_keys(values, dir)?;
    set_master_key(values, dir)?;
    set_mail_folder(values, dir)?;
    // In development, nobody verifies email addresses, so a sign-in without a tenant also looks up
    // addresses that are not verified.
    values.set_default("TENANTLESS_SIGN_IN", "any");
    let config = Config::check(values)?;
    let listeners = Listeners::bind(&config.server).await?;
    let addr = listeners.grpc.local_addr()?;

    let mut connection = pg::connect_owner(&owner_url).await?;
    pg::migrate(&mut connection).await?;
    let replaces_shared = false;
    pg::set_app_password(&mut connection, &config.database.url, replaces_shared).await?;
    connection.close().await?;
    let credentials_file = dir.join("credentials.json");
    let demo_credentials =
        create_tenants(values, &owner_url, &config.database.url, &credentials_file).await?;

    let transport = if config.server.tls.is_some() { "" } else { "-plaintext " };
    let app = App::build(config)?;
    let text = greeting(&addr.to_string(), transport, &credentials_file, &demo_credentials);
    out.write_all(text.as_bytes())?;
    server::serve(app, listeners, stop).await
}

/// Sets the URLs of the stores if they are missing. Returns the URL with which the schema's owner
/// connects.
async fn set_store_urls(
    values: &mut Values,
    dir: &Path,
    services: Option<&Services>,
) -> anyhow::Result<SecretString> {
    if values.get("REDIS_URL").is_none() {
        let services = services.context("no private Redis")?;
        values.set("REDIS_URL", services.redis_url());
    }
    if let Some(database_url) = values.get("DATABASE_URL").map(str::to_owned) {
        if let Some(owner_url) = values.get("MIGRATE_DATABASE_URL") {
            return Ok(owner_url.into());
        }
        // Without MIGRATE_DATABASE_URL, DATABASE_URL is the URL of the schema's owner. The server
        // connects with the role `tenantry_app` instead.
        let password = app_password(dir)?;
        let mut url = url::Url::parse(&database_url)
            .map_err(|_| anyhow::anyhow!("DATABASE_URL can't be read"))?;
        let has_credentials = url.set_username("tenantry_app").is_ok()
            && url.set_password(Some(password.expose_secret())).is_ok();
        // Only a URL without a host can't have a user and a password.
        if !has_credentials {
            bail!("DATABASE_URL has no host");
        }
        values.set("DATABASE_URL", url.as_str());
        return Ok(database_url.into());
    }
    let services = services.context("no private Postgres")?;
    create_database(&services.postgres_url("postgres", "postgres").into()).await?;
    values.set("DATABASE_URL", services.postgres_url("tenantry_app", DATABASE));
    Ok(services.postgres_url("postgres", DATABASE).into())
}

/// The password of the role `tenantry_app` in a Postgres that this command did not start. The
/// password is generated once and stored in a file.
fn app_password(dir: &Path) -> anyhow::Result<SecretString> {
    let path = dir.join("app-password");
    if let Ok(password) = fs::read_to_string(&path) {
        return Ok(password.into());
    }
    let password = provision::random_secret()?;
    write_private(&path, password.expose_secret())?;
    Ok(password)
}

async fn create_database(admin: &SecretString) -> anyhow::Result<()> {
    let mut connection = pg::connect_owner(admin).await?;
    let exists = sqlx::query_scalar!(
        r#"select exists (select from pg_database where datname = $1) as "exists!""#,
        DATABASE,
    )
    .fetch_one(&mut connection)
    .await?;
    if !exists {
        sqlx::raw_sql(AssertSqlSafe(format!("create database {DATABASE}")))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    Ok(())
}

/// Creates signing keys, unless the settings have the paths of keys.
fn set_signing_keys(values: &mut Values, dir: &Path) -> anyhow::Result<()> {
    if values.get("JWT_ACCESS_PRIVATE_KEY_PATH").is_some() {
        return Ok(());
    }
    let keys = dir.join("keys");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&keys)
        .with_context(|| format!("can't create {}", keys.display()))?;
    pem::ensure(&keys, pem::KeyAlgorithm::Rs256)?;
    let paths = pem::paths(&keys);
    for (name, path) in [
        ("JWT_ACCESS_PRIVATE_KEY_PATH", paths.access_private),
        ("JWT_ACCESS_PUBLIC_KEY_PATH", paths.access_public),
        ("JWT_REFRESH_PRIVATE_KEY_PATH", paths.refresh_private),
        ("JWT_REFRESH_PUBLIC_KEY_PATH", paths.refresh_public),
    ] {
        values.set(name, path.to_string_lossy());
    }
    Ok(())
}

/// Creates a master key, unless the settings have a master key.
fn set_master_key(values: &mut Values, dir: &Path) -> anyhow::Result<()> {
    let is_off = |name| values.get(name).is_none_or(|text| text == "off");
    if !is_off("MASTER_KEY_PATH") || !is_off("MASTER_TRANSIT_KEY") {
        return Ok(());
    }
    let path = dir.join("master.keys");
    privacy::ensure_key(&path)?;
    values.set("MASTER_KEY_PATH", path.to_string_lossy());
    Ok(())
}

/// Sets a folder as the destination of mails, unless the settings have a destination. The developer
/// can read the mails there.
fn set_mail_folder(values: &mut Values, dir: &Path) -> anyhow::Result<()> {
    if values.get("MAIL_URL").is_none_or(|url| url == "off") {
        let dir = std::path::absolute(dir.join("mail"))?;
        let url = url::Url::from_directory_path(dir);
        values.set(
            "MAIL_URL",
            url.map_err(|()| anyhow::anyhow!("the path of the folder for mails is invalid"))?,
        );
    }
    Ok(())
}

/// Creates the platform and demo tenants, and writes the credentials of their administrators to
/// `credentials_file`. Returns the credentials of the demo administrator. If a tenant exists but
/// the file does not, the tenant's administrator gets a new password. This happens when the file
/// was deleted, or when an earlier start was interrupted.
async fn create_tenants(
    values: &Values,
    owner_url: &SecretString,
    app_url: &SecretString,
    credentials_file: &Path,
) -> anyhow::Result<Value> {
    if let Some(demo_credentials) = read_demo_credentials(credentials_file) {
        return Ok(demo_credentials);
    }
    let hasher = bootstrap::hasher(values)?;
    let (owner_db, app_db) = (open(values, owner_url).await?, open(values, app_url).await?);
    let platform = provision::create_platform_tenant(&owner_db, &hasher, PLATFORM_EMAIL).await?;
    let policy = config::Passwords::check(values)?.policy;
    let reset = async |slug, email| {
        let request = PasswordReset { slug, email, password: None, enable: true };
        let result = provision::reset_password(&app_db, &hasher, policy, request).await?;
        anyhow::Ok(result.credentials)
    };
    let platform = match platform {
        Some(credentials) => credentials,
        None => reset(provision::PLATFORM, PLATFORM_EMAIL).await?,
    };
    let email = bootstrap::DEMO_EMAIL;
    let demo: Credentials = match provision::create_demo_tenant(&app_db, &hasher, email).await? {
        Some(credentials) => credentials,
        None => reset(provision::DEMO, email).await?,
    };
    owner_db.close().await;
    app_db.close().await;
    let content = json!({ "platform_admin": platform, "demo_admin": demo });
    write_private(credentials_file, &format!("{content:#}\n"))?;
    Ok(content["demo_admin"].clone())
}

/// Reads the credentials of the demo administrator; `None` when the file is not complete.
fn read_demo_credentials(file: &Path) -> Option<Value> {
    let content: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    content.get("platform_admin")?;
    content.get("demo_admin").cloned()
}

/// Writes a file atomically. Only its owner can read it.
fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    files::replace(path, 0o600, content.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

/// The text that `tenantry dev` prints when it serves. `transport` is the option of `grpcurl` for
/// plaintext, or empty.
fn greeting(
    addr: &str,
    transport: &str,
    credentials_file: &Path,
    demo_credentials: &Value,
) -> String {
    let credentials_file = credentials_file.display();
    let login = json!({
        "email": demo_credentials["email"],
        "password": demo_credentials["password"],
        "organization_slug": demo_credentials["tenant"],
    });
    format!(
        "credentials are in {credentials_file}\n\
         sign in to the demo tenant with:\n\
         \n  \
         grpcurl {transport}-d '{login}' {addr} tenantry.v1.AuthService/Login\n\
         \n\
         serving gRPC on {addr}; Ctrl-C stops\n"
    )
}
