//! The command `tenantry master-key`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{ArgMatches, Command};

use super::{connect::open, progress, provision};
use crate::{
    config::{self, Values, postgres_url},
    db::Db,
    privacy::{self, rewrap},
};

pub(super) fn command() -> Command {
    let with_settings = |name: &'static str, about: &'static str| {
        Values::arguments(Command::new(name).about(about))
    };
    Command::new("master-key")
        .about("Create, rotate and show the keys that wrap tenants' data keys")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(
            "generate",
            "Create the file MASTER_KEY_PATH with a first key; an existing file is not changed",
        ))
        .subcommand(with_settings(
            "rotate",
            "Add a new key at the front of the file MASTER_KEY_PATH and wrap all data keys with it. \
             If this command is interrupted, run it again to continue",
        ))
        .subcommand(with_settings(
            "rewrap",
            "Wrap all data keys with the current master key, which is in a file or in a key \
             service. If this command is interrupted, run it again to continue",
        ))
        .subcommand(with_settings("list", "Show how many data keys each master key wraps"))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let values = Values::gather(matches).check_sources()?;
    if name == "generate" {
        return generate(&values);
    }
    let db = open(&values, &postgres_url(&values, "DATABASE_URL")?).await?;
    match name {
        "rotate" => rotate(&db, &values).await?,
        "rewrap" => rewrap_all(&db).await?,
        // `list`: all three commands end with the list of the master keys.
        _ => {}
    }
    list(&db).await
}

fn generate(values: &Values) -> anyhow::Result<()> {
    let path = key_file(values)?;
    match privacy::ensure_key(&path)? {
        Some(id) => out!("made the master key {id} in {}", path.display()),
        None => out!("a master key is in {} already", path.display()),
    }
    Ok(())
}

/// Adds a new master key and wraps all data keys with it. If the last rotation is unfinished,
/// finishes that rotation instead.
async fn rotate(db: &Db, values: &Values) -> anyhow::Result<()> {
    let source = config::master_keys(values)?;
    if let Some((_connection, key_name)) = source.service {
        bail!("rotate {key_name} in the key service, then run: tenantry master-key rewrap");
    }
    let path = key_file(values)?;
    let current = rewrap::current(db.master_keys()?).await?;
    // The last rotation is finished when the current master key wraps all data keys.
    let is_last_finished =
        data_key_counts(db).await?.keys().all(|wrapped_by| *wrapped_by == current);
    if is_last_finished {
        let id = privacy::add_key(&path)?;
        out!("the new master key is {id}");
    } else {
        out!("continuing the last rotation");
    }
    rewrap_all(db).await
}

/// Wraps all data keys that other master keys wrap with the current master key, and records their
/// number.
async fn rewrap_all(db: &Db) -> anyhow::Result<()> {
    let current = rewrap::current(db.master_keys()?).await?;
    let by_other_keys =
        data_key_counts(db).await?.into_iter().filter(|(wrapped_by, _)| *wrapped_by != current);
    let total = by_other_keys.map(|(_, count)| count.unsigned_abs()).sum();
    let bar = progress::bar(total, "data keys wrapped");
    let report = |progress: &rewrap::Progress| bar.set_position(progress.rewrapped);
    let result = rewrap::all(db.postgres(), db.master_keys()?, report).await;
    bar.finish_and_clear();
    let summary = result?;
    let (by, rewrapped, failed) = (&summary.by, summary.rewrapped, summary.failed);
    ensure!(failed == 0, "{failed} data keys can't be wrapped anew: {}", summary.reason);
    out!("all data keys are wrapped by {by}; {rewrapped} were wrapped anew");
    if rewrapped > 0 {
        provision::record_rewrapped(db, by, rewrapped).await?;
    }
    Ok(())
}

async fn list(db: &Db) -> anyhow::Result<()> {
    for (by, count) in data_key_counts(db).await? {
        out!("{by:<30} {count}");
    }
    Ok(())
}

/// Number of data keys that each master key wraps, by the id of the master key.
async fn data_key_counts(db: &Db) -> anyhow::Result<BTreeMap<String, i64>> {
    Ok(rewrap::counts(db.postgres()).await?.into_iter().collect())
}

fn key_file(values: &Values) -> anyhow::Result<PathBuf> {
    config::master_keys(values)?.file.context("MASTER_KEY_PATH must be set")
}
