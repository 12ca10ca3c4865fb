//! URLs of Postgres.

use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

/// Whether a URL can be read; if not, what it should be.
pub(crate) fn check_url(url: &SecretString) -> Result<(), &'static str> {
    // The parser's own error may repeat a password.
    let read = url.expose_secret().parse::<PgConnectOptions>();
    read.map(drop).map_err(|_| "must be a URL like postgres://user@host/database")
}

/// The options that a URL stands for.
///
/// # Errors
/// When it can't be read; the error does not repeat it.
pub(super) fn parse(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    check_url(url)
        .map_err(|wanted| anyhow::anyhow!("a Postgres URL can't be read: it {wanted}"))?;
    let options: PgConnectOptions = url.expose_secret().parse()?;
    Ok(options.application_name("tenantry").disable_statement_logging())
}
