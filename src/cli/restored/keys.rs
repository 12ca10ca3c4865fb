//! Checks that the configured keys and peppers are the ones that the restored database needs.

use std::collections::BTreeMap;

use anyhow::Context;

use super::{Tenants, store};
use crate::{
    cli::progress,
    concurrency::step::bounded,
    config::{self, Passwords, Values},
    db::Db,
    passwords,
    privacy::openable,
    tokens::Keyring,
};

/// Returns one sentence for each master key and each pepper that the data of the database needs and
/// that is not configured. Also checks that the signing keys can be read.
///
/// # Errors
/// When Postgres is unavailable, or when a file can't be read.
pub(super) async fn missing(db: &Db, values: &Values) -> anyhow::Result<Vec<String>> {
    let mut sentences = missing_master_keys(db, values).await?;
    sentences.extend(missing_peppers(db, values).await?);
    if let Some(source) = config::signing_keys(values)? {
        // The client of a key service blocks its thread, so it must not run on a thread of the
        // runtime.
        let load = move || Keyring::load(&source, "", "");
        let keyring = tokio::task::spawn_blocking(load).await?;
        keyring.context("the signing keys can't be read (JWT_…_KEY_PATH)")?;
    }
    Ok(sentences)
}

async fn missing_master_keys(db: &Db, values: &Values) -> anyhow::Result<Vec<String>> {
    let spinner = progress::spinner("unwrapping data keys");
    let report = |count| spinner.set_message(format!("{count} data keys unwrapped"));
    let unopened = openable::unopened(db.postgres(), db.master_keys()?, report).await;
    spinner.finish_and_clear();
    let file = values.get("MASTER_KEY_PATH").unwrap_or("off");
    let sentence = |(by, keys): (String, openable::UnopenedKeys)| {
        format!(
            "MASTER_KEY_PATH ({file}) does not unwrap {} data keys that the master key {by} wraps: {}",
            keys.count, keys.reason
        )
    };
    Ok(unopened?.into_iter().map(sentence).collect())
}

async fn missing_peppers(db: &Db, values: &Values) -> anyhow::Result<Vec<String>> {
    let mut uses = BTreeMap::<String, i64>::new();
    let mut tenants = Tenants::of(db);
    while let Some(tenant) = tenants.next().await? {
        let peppers = bounded(async {
            let mut tx = db.begin_without_cipher(tenant).await?;
            store::peppers(&mut tx, tenant).await
        });
        for pepper in peppers.await? {
            *uses.entry(pepper.id).or_default() += pepper.count;
        }
    }
    let path = Passwords::check(values)?.pepper;
    let file = path.as_ref().map_or_else(|| "off".to_owned(), |path| path.display().to_string());
    let mut sentences = Vec::new();
    for (id, count) in uses {
        let missing_ids = passwords::missing_peppers(path.as_deref(), &[id])
            .context("the peppers can't be read (PASSWORD_PEPPER_PATH)")?;
        for missing_id in missing_ids {
            sentences.push(format!(
                "PASSWORD_PEPPER_PATH ({file}) lacks the pepper {missing_id}, which {count} \
                 passwords need"
            ));
        }
    }
    Ok(sentences)
}
