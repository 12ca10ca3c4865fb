//! Postgres, as commands reach it.

use anyhow::Context;
use secrecy::SecretString;

use crate::{
    config::{self, Values},
    db::Db,
    privacy::DataKeys,
};

/// One connection to Postgres, for commands that read and write personal data.
pub(super) async fn open(values: &Values, url: &SecretString) -> anyhow::Result<Db> {
    let source = config::master_keys(values)?;
    // A key service's client must not block the runtime's threads.
    let data_keys = tokio::task::spawn_blocking(move || DataKeys::load(&source)).await??;
    let db = Db::connect(url, 1)?.with_data_keys(data_keys);
    db.prepare().await?;
    Ok(db)
}

/// A URL among the settings.
pub(super) fn url(values: &Values, name: &str) -> anyhow::Result<SecretString> {
    values.get(name).map(SecretString::from).with_context(|| format!("{name} must be set"))
}
