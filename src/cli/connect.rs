//! The connection of commands to Postgres.

use secrecy::SecretString;

use crate::{
    config::{self, Values},
    db::Db,
    privacy::DataKeys,
};

/// Opens one connection to Postgres and loads the data keys, for commands that read or write
/// personal data.
pub(super) async fn open(values: &Values, url: &SecretString) -> anyhow::Result<Db> {
    let source = config::master_keys(values)?;
    // The client of a key service blocks its thread, so it must not run on a thread of the runtime.
    let data_keys = tokio::task::spawn_blocking(move || DataKeys::load(&source)).await??;
    let db = Db::connect(url, 1)?.with_data_keys(data_keys);
    db.postgres().check().await?;
    db.load_common_data_key().await?;
    Ok(db)
}
