//! What is measured: stores of its own, databases of several sizes, and servers.
//!
//! Everything is loaded before anything is measured, with all cores. Then the
//! stores are started again, away from the server's core.

pub mod data;
pub mod databases;
pub mod floor;
pub mod noisy;
pub mod server;
mod services;
pub mod shape;
mod statements;
pub mod tokens;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context;
use data::Loaded;
use floor::Floor;
use noisy::NoisyTenant;
use server::Server;
use shape::{ASKER_SESSIONS, SESSIONS, Shape};
use tenantry::{
    dev::Services,
    tokens::{Keyring, pem},
};
use tokens::Bearer;
use tokio::runtime::Runtime;

use crate::cores::{Cores, pin};

/// The stores with their data, and how to serve from them.
pub struct World {
    /// The databases, by their users.
    pub loaded: BTreeMap<u64, Loaded>,
    /// Who runs where.
    pub cores: Cores,
    services: Services,
    runtime: Runtime,
    keys_dir: PathBuf,
    /// The tokens of all sessions, by the users of their database.
    tokens: BTreeMap<u64, Vec<Bearer>>,
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
        let tokens = sign_all(&keys.signing, sizes)?;
        let loaded = runtime.block_on(databases::load(&services, &keys, sizes, keep))?;
        runtime.block_on(statements::count_from_next_start(&services))?;
        runtime.block_on(services.stop())?;
        // What is still to be written would be written while something is measured.
        rustix::fs::sync();

        pin(&cores.load)?;
        let services = services::start(&stores, Some(&cores.stores))?;
        Ok(Self { loaded, cores, services, runtime, keys_dir, tokens, keep })
    }

    /// Starts a server on the database of this size, with settings beyond the
    /// defaults.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self, users: u64, settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let keys = pem::paths(&self.keys_dir);
        let mut all = vec![
            ("DATABASE_URL", self.services.postgres_url("tenantry_app", &databases::name(users))),
            ("REDIS_URL", self.services.redis_url()),
            ("JWT_ACCESS_PRIVATE_KEY_PATH", keys.access_private.display().to_string()),
            ("JWT_ACCESS_PUBLIC_KEY_PATH", keys.access_public.display().to_string()),
            ("JWT_REFRESH_PRIVATE_KEY_PATH", keys.refresh_private.display().to_string()),
            ("JWT_REFRESH_PUBLIC_KEY_PATH", keys.refresh_public.display().to_string()),
            ("MASTER_KEY_PATH", tokens::master_key(&self.keys_dir).display().to_string()),
            // Several serve at once.
            ("HTTP_ADDR", "off".to_owned()),
            // All of a flood comes from one address.
            ("RATE_LIMIT_SIGN_IN", "off".to_owned()),
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
        self.runtime.block_on(statements::asked(&self.services, &databases::name(users)))
    }

    /// The tokens of the subjects' sessions of a database, in order.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn subjects_tokens(&self, users: u64) -> anyhow::Result<Vec<Bearer>> {
        Ok(self.tokens(users)?[..usize::try_from(SESSIONS)?].to_vec())
    }

    /// The tokens of the one who may ask about others.
    ///
    /// # Errors
    /// When there is no such database.
    pub fn askers_tokens(&self, users: u64) -> anyhow::Result<Vec<Bearer>> {
        Ok(self.tokens(users)?[usize::try_from(SESSIONS)?..].to_vec())
    }

    /// The refresh tokens that these sessions were loaded with.
    ///
    /// # Errors
    /// When the keys can't be read.
    pub fn refresh_tokens(&self, users: u64, sessions: Range<u64>) -> anyhow::Result<Vec<String>> {
        let keys = tokens::keys(&self.keys_dir)?.signing;
        sessions.map(|session| tokens::refresh_token(&keys, Shape { users }, session)).collect()
    }

    /// What a sign-in and a refresh can't cost less than, now.
    ///
    /// # Errors
    /// When a key can't be read, or Postgres is away.
    pub fn floor(&self, users: u64) -> anyhow::Result<Floor> {
        let database = services::owner_url(&self.services, &databases::name(users));
        floor::measure(self.cores.server, &self.keys_dir, &databases::passwords()?, &database)
    }

    /// Registers a tenant at a server, and fills it with the most that it may have.
    ///
    /// # Errors
    /// When the server refuses even the least.
    pub fn noisy_tenant(&self, server: &Server) -> anyhow::Result<NoisyTenant> {
        self.runtime.block_on(noisy::make(server))
    }

    fn tokens(&self, users: u64) -> anyhow::Result<&[Bearer]> {
        let tokens = self.tokens.get(&users).map(Vec::as_slice);
        tokens.with_context(|| format!("no database of {users} users"))
    }

    /// Ends the stores.
    ///
    /// # Errors
    /// When they do not end.
    pub fn end(self) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            if !self.keep {
                databases::drop(&self.services, self.loaded.keys()).await?;
            }
            self.services.stop().await
        })
    }
}

fn sign_all(keys: &Keyring, sizes: &[u64]) -> anyhow::Result<BTreeMap<u64, Vec<Bearer>>> {
    let sign = |users| tokens::sign(keys, Shape { users }, SESSIONS + ASKER_SESSIONS);
    sizes.iter().map(|users| Ok((*users, sign(*users)?))).collect()
}
