//! What is measured: stores of its own, databases of several sizes, and servers.
//!
//! Everything is loaded before anything is measured, with all cores. Then the
//! stores are started again, away from the server's core.

pub mod data;
pub mod server;
mod services;
pub mod shape;
mod statements;
pub mod tokens;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use data::Loaded;
use server::Server;
use shape::Shape;
use tenantry::{
    config::{Passwords, SETTINGS, Values},
    db,
    dev::Services,
    passwords::{Hasher, normalise},
    tokens::{Keyring, pem},
};
use tokens::Bearer;
use tokio::runtime::Runtime;

use crate::cores::{Cores, pin};

/// The guest's password.
pub const PASSWORD: &str = "correct horse battery";

/// How a database is called while it is not complete.
const UNFINISHED: &str = "unfinished";

/// The stores with their data, and how to serve from them.
pub struct World {
    /// The databases, by their users.
    pub loaded: BTreeMap<u64, Loaded>,
    /// Who runs where.
    pub cores: Cores,
    services: Services,
    runtime: Runtime,
    keys_dir: PathBuf,
    keys: Keyring,
    keep: bool,
}

impl World {
    /// Loads databases of these sizes below `dir`, and starts the stores on their
    /// cores. With `keep` databases of an earlier run are used where they are
    /// complete, and left there in the end.
    ///
    /// # Errors
    /// When something is not installed or does not come up, or the disk is full.
    pub fn make(dir: &Path, cores: Cores, sizes: &[u64], keep: bool) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let keys_dir = dir.join("keys");
        let keys = tokens::keys(&keys_dir)?;
        let stores = dir.join("stores");

        let services = services::start(&stores, None)?;
        for note in services.notes() {
            crate::say(note);
        }
        let loaded = runtime.block_on(load_all(&services, &keys, sizes, keep))?;
        runtime.block_on(statements::count_from_next_start(&services))?;
        runtime.block_on(services.stop())?;
        // What is still to be written would be written while something is measured.
        rustix::fs::sync();

        pin(&cores.load)?;
        let services = services::start(&stores, Some(&cores.stores))?;
        Ok(Self { loaded, cores, services, runtime, keys_dir, keys, keep })
    }

    /// Starts a server on the database of this size, with settings beyond the
    /// defaults.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self, users: u64, settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let keys = pem::paths(&self.keys_dir);
        let mut all = vec![
            ("DATABASE_URL", self.services.postgres_url("tenantry_app", &name(users))),
            ("REDIS_URL", self.services.redis_url()),
            ("JWT_ACCESS_PRIVATE_KEY_PATH", keys.access_private.display().to_string()),
            ("JWT_ACCESS_PUBLIC_KEY_PATH", keys.access_public.display().to_string()),
            ("JWT_REFRESH_PRIVATE_KEY_PATH", keys.refresh_private.display().to_string()),
            ("JWT_REFRESH_PUBLIC_KEY_PATH", keys.refresh_public.display().to_string()),
            // Several serve at once.
            ("HTTP_ADDR", "off".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = server::sibling("tenantry")?;
        let arguments = |_| vec!["serve".to_owned()];
        let start = Server::start(self.cores.server, &program, Some(users), arguments, &all);
        self.runtime.block_on(start)
    }

    /// Starts the server that does nothing but answer.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve_bare(&self) -> anyhow::Result<Server> {
        let program = std::env::current_exe().context("this program has no path")?;
        let arguments = |addr| vec!["bare".to_owned(), format!("{addr}")];
        let start = Server::start(self.cores.server, &program, None, arguments, &[]);
        self.runtime.block_on(start)
    }

    /// How often the servers of a database have asked Postgres for the sake of a call
    /// so far.
    ///
    /// # Errors
    /// When Postgres is away.
    pub fn asked(&self, users: u64) -> anyhow::Result<u64> {
        self.runtime.block_on(statements::asked(&self.services, &name(users)))
    }

    /// Signs the tokens of sessions `from..until` of a database.
    ///
    /// # Errors
    /// Those of [`tokens::sign`].
    pub fn tokens(&self, users: u64, from: u64, until: u64) -> anyhow::Result<Vec<Bearer>> {
        tokens::sign(&self.keys, Shape { users }, from, until)
    }

    /// Ends the stores.
    ///
    /// # Errors
    /// When they do not end.
    pub fn end(self) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            if !self.keep {
                let drops: Vec<_> =
                    self.loaded.keys().map(|users| drop_of(&name(*users))).collect();
                services::administer(&self.services, &drops).await?;
            }
            self.services.stop().await
        })
    }
}

/// The database of so many users.
fn name(users: u64) -> String {
    format!("users_{users}")
}

fn drop_of(database: &str) -> String {
    format!("drop database if exists {database} with (force)")
}

async fn load_all(
    services: &Services,
    keys: &Keyring,
    sizes: &[u64],
    keep: bool,
) -> anyhow::Result<BTreeMap<u64, Loaded>> {
    // Tidying up is for quieter times, and so are checkpoints.
    let quiet = ["alter system set autovacuum = off", "alter system set max_wal_size = '4GB'"];
    services::administer(services, &quiet.map(str::to_owned)).await?;
    services::administer(services, &["select pg_reload_conf()".to_owned()]).await?;
    let hash = guest_hash().await?;
    let mut loaded = BTreeMap::new();
    for users in sizes {
        let kept = keep && is_current(services, *users).await;
        let (rows, took) = if kept {
            (0, None)
        } else {
            let work = load_one(services, keys, Shape { users: *users }, &hash);
            let (rows, took) = data::timed(work).await?;
            (rows, Some(took))
        };
        let bytes = data::size(&services::owner_url(services, &name(*users))).await?;
        let found = Loaded { users: *users, rows, took, bytes };
        crate::say(&found.to_string());
        loaded.insert(*users, found);
    }
    Ok(loaded)
}

/// Whether an earlier run left this database, with the schema of today.
async fn is_current(services: &Services, users: u64) -> bool {
    if !services::exists(services, &name(users)).await.unwrap_or(false) {
        return false;
    }
    let migrated = async {
        let mut owner = db::connect_owner(&services::owner_url(services, &name(users))).await?;
        db::migrate(&mut owner, None).await
    };
    migrated.await.is_ok()
}

async fn load_one(
    services: &Services,
    keys: &Keyring,
    shape: Shape,
    guest_hash: &str,
) -> anyhow::Result<u64> {
    let name = name(shape.users);
    let fresh = [drop_of(&name), drop_of(UNFINISHED), format!("create database {UNFINISHED}")];
    services::administer(services, &fresh).await?;
    let owner = services::owner_url(services, UNFINISHED);
    let mut connection = db::connect_owner(&owner).await?;
    db::migrate(&mut connection, None).await?;
    sqlx::Connection::close(connection).await?;
    let rows = data::load(&owner, shape, keys, guest_hash).await?;
    let complete = format!("alter database {UNFINISHED} rename to {name}");
    services::administer(services, &[complete]).await?;
    Ok(rows)
}

/// The guest's password, hashed as the settings default to.
async fn guest_hash() -> anyhow::Result<String> {
    let mut values = Values::default();
    for setting in SETTINGS {
        if let Some(default) = setting.default {
            values.set(setting.name, default);
        }
    }
    let hasher = Hasher::start(&Passwords::check(&values)?)?;
    let hash = hasher.hash(normalise(PASSWORD)).await;
    hash.map_err(|_| anyhow::anyhow!("the guest's password can't be hashed"))
}
