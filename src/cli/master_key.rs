//! The command `tenantry master-key`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{ArgMatches, Command};

use super::{
    connect::{open, url},
    progress, provision,
};
use crate::{
    config::{self, Values},
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
            "Create MASTER_KEY_PATH with a first key; existing keys are not changed",
        ))
        .subcommand(with_settings(
            "rotate",
            "Add a new key at the front of MASTER_KEY_PATH and wrap all data keys by it. Safe to \
             interrupt: another run continues",
        ))
        .subcommand(with_settings(
            "rewrap",
            "Wrap all data keys by the current master key, in a file or a key service. Safe to \
             interrupt: another run continues",
        ))
        .subcommand(with_settings("list", "Show how many data keys each master key wraps"))
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let values = Values::gather(matches)?;
    if name == "generate" {
        return generate(&values);
    }
    let db = open(&values, &url(&values, "DATABASE_URL")?).await?;
    match name {
        "rotate" => rotate(&db, &values).await?,
        "rewrap" => wrap_all(&db).await?,
        _ => {}
    }
    list(&db).await
}

fn generate(values: &Values) -> anyhow::Result<()> {
    let path = file(values)?;
    match privacy::ensure_key(&path)? {
        Some(id) => println!("made the master key {id} in {}", path.display()),
        None => println!("a master key is in {} already", path.display()),
    }
    Ok(())
}

/// Adds a new key and wraps all data keys by it. An unfinished rotation is finished instead.
async fn rotate(db: &Db, values: &Values) -> anyhow::Result<()> {
    let source = config::master_keys(values)?;
    if let Some((_, name)) = source.service {
        bail!("rotate {name} in the key service, then run: tenantry master-key rewrap");
    }
    let path = file(values)?;
    let masters = db.master_keys()?;
    let current = rewrap::current(masters).await?;
    let is_finished = counts(db).await?.keys().all(|by| *by == current);
    if is_finished {
        let id = privacy::add_key(&path)?;
        println!("the master key is {id} now");
    } else {
        println!("continuing the last rotation");
    }
    wrap_all(db).await
}

async fn wrap_all(db: &Db) -> anyhow::Result<()> {
    let current = rewrap::current(db.master_keys()?).await?;
    let left = counts(db).await?.into_iter().filter(|(by, _)| *by != current);
    let left = left.map(|(_, count)| count.unsigned_abs()).sum();
    let bar = progress::bar(left, "data keys wrapped");
    let tell = |progress: &rewrap::Progress| bar.set_position(progress.rewrapped);
    let done = rewrap::all(db.postgres(), db.master_keys()?, tell).await;
    bar.finish_and_clear();
    let done = done?;
    ensure!(done.failed == 0, "{} data keys can't be wrapped anew: {}", done.failed, done.reason);
    println!("all data keys are wrapped by {}; {} were wrapped anew", done.by, done.rewrapped);
    if done.rewrapped > 0 {
        provision::record_rewrapped(db, &done.by, done.rewrapped).await?;
    }
    Ok(())
}

async fn list(db: &Db) -> anyhow::Result<()> {
    for (by, count) in counts(db).await? {
        println!("{by:<30} {count}");
    }
    Ok(())
}

async fn counts(db: &Db) -> anyhow::Result<BTreeMap<String, i64>> {
    Ok(rewrap::counts(db.postgres()).await?.into_iter().collect())
}

fn file(values: &Values) -> anyhow::Result<PathBuf> {
    config::master_keys(values)?.file.context("MASTER_KEY_PATH must be set")
}
