//! Checks that the configured key files open what the restored database holds.

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

/// What the configured keys don't open: one sentence for each missing key.
///
/// # Errors
/// When Postgres is unavailable, or when a file can't be read.
pub(super) async fn missing(db: &Db, values: &Values) -> anyhow::Result<Vec<String>> {
    let mut missing = missing_master_keys(db, values).await?;
    missing.extend(missing_peppers(db, values).await?);
    if let Some(source) = config::signing_keys(values)? {
        // The client of a key service blocks its thread.
        let load = move || Keyring::load(&source, "", "");
        let keyring = tokio::task::spawn_blocking(load).await?;
        keyring.context("the signing keys can't be read (JWT_…_KEY_PATH)")?;
    }
    Ok(missing)
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
        let missing = passwords::missing_peppers(path.as_deref(), &[id]);
        for missing in missing.context("the peppers can't be read (PASSWORD_PEPPER_PATH)")? {
            sentences.push(format!(
                "PASSWORD_PEPPER_PATH ({file}) lacks the pepper {missing}, which {count} passwords need"
            ));
        }
    }
    Ok(sentences)
}
