//! The schema: its migrations, and the connection of its owner.

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::{postgres::APP_ROLE, url::parse};

/// Opens one connection as the role that owns the schema.
///
/// # Errors
/// When the URL is invalid or Postgres is unavailable.
pub async fn connect_owner(url: &SecretString) -> anyhow::Result<PgConnection> {
    parse(url)?.connect().await.context("can't connect to Postgres as the schema's owner")
}

/// Applies all migrations. If `app_url` contains the service's role and a password, sets that
/// password for the role.
///
/// # Errors
/// When Postgres is unavailable or a migration fails. A failed migration is rolled back.
pub async fn migrate(
    owner_connection: &mut PgConnection,
    app_url: Option<&SecretString>,
) -> anyhow::Result<()> {
    sqlx::migrate!().run(&mut *owner_connection).await.context("a migration failed")?;
    let Some(password) = app_url.and_then(app_password) else { return Ok(()) };
    let mut tx = owner_connection.begin().await?;
    let statement = sqlx::query_scalar!(
        r#"select format('alter role tenantry_app password %L', $1::text) as "sql!""#,
        password.expose_secret()
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

fn app_password(url: &SecretString) -> Option<SecretString> {
    let url = url::Url::parse(url.expose_secret()).ok()?;
    let password = url.password().filter(|_| url.username() == APP_ROLE)?;
    let decoded = percent_encoding::percent_decode_str(password).decode_utf8().ok()?;
    Some(SecretString::from(decoded.into_owned()))
}
