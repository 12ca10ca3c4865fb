//! Parsing of Postgres URLs.

use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

/// Checks that a URL is valid. The error says what the URL must look like.
pub(crate) fn check_url(url: &SecretString) -> Result<(), &'static str> {
    // The parser's own error may repeat a password.
    let options = url.expose_secret().parse::<PgConnectOptions>();
    options.map(drop).map_err(|_| "must be a URL like postgres://user@host/database")
}

/// The connection options of a URL.
///
/// # Errors
/// When the URL is invalid. The error does not contain the URL, because the URL may contain a
/// password.
pub(super) fn parse(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    check_url(url)
        .map_err(|problem| anyhow::anyhow!("a Postgres URL can't be read: it {problem}"))?;
    let options: PgConnectOptions = url.expose_secret().parse()?;
    Ok(options.application_name("tenantry").disable_statement_logging())
}
