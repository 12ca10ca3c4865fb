//! The measured system: its own stores, databases of several sizes, and servers.
//!
//! All data is loaded before the first measurement, on all cores. Then the stores are restarted
//! on cores other than the server's.

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

/// The stores with their data, and the means to start servers on them.
pub struct World {
    /// The databases, by number of users.
    pub loaded: BTreeMap<u64, Loaded>,
    /// Assignment of the cores.
    pub cores: Cores,
    services: Services,
    runtime: Runtime,
    keys_dir: PathBuf,
    /// Access tokens of all sessions, by number of users in their database.
    tokens: BTreeMap<u64, Vec<Bearer>>,
    keep: bool,
}

impl World {
    /// Loads databases of these sizes below `dir`, then restarts the stores on their cores.
    /// With `keep`, complete databases of an earlier run are used again and are kept at the
    /// end.
    ///
    /// # Errors
    /// Returns an error when a program is not installed, a store does not start, or the disk is
    /// full.
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
        // Without this sync, the kernel would write the data to disk during a measurement.
        rustix::fs::sync();

        pin(&cores.load)?;
        let services = services::start(&stores, Some(&cores.stores))?;
        Ok(Self { loaded, cores, services, runtime, keys_dir, tokens, keep })
    }

    /// Starts a server on the database of this size. `settings` replace the defaults.
    ///
    /// # Errors
    /// Returns an error when the server does not start.
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
            // Several servers run at the same time, so no server may use the fixed HTTP port.
            ("HTTP_ADDR", "off".to_owned()),
            // All sign-ins of a flood come from one address.
            ("RATE_LIMIT_SIGN_IN", "off".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = server::sibling("tenantry")?;
        let arguments = |_| vec!["serve".to_owned()];
        let start = Server::start(self.cores.server, &program, Some(users), arguments, &all);
        self.runtime.block_on(start)
    }

    /// Starts the minimal gRPC server.
    ///
    /// # Errors
    /// Returns an error when the server does not start.
    pub fn serve_bare(&self) -> anyhow::Result<Server> {
        let program = std::env::current_exe().context("this program has no path")?;
        let arguments = |addr| vec!["bare".to_owned(), format!("{addr}")];
        let start = Server::start(self.cores.server, &program, None, arguments, &[]);
        self.runtime.block_on(start)
    }

    /// Number of statements that servers have sent to a database so far because of calls.
    ///
    /// # Errors
    /// Returns an error when Postgres is unavailable.
    pub fn asked(&self, users: u64) -> anyhow::Result<u64> {
        self.runtime.block_on(statements::asked(&self.services, &databases::name(users)))
    }

    /// Access tokens of the subjects' sessions in a database, in order.
    ///
    /// # Errors
    /// Returns an error when there is no such database.
    pub fn subjects_tokens(&self, users: u64) -> anyhow::Result<Vec<Bearer>> {
        Ok(self.tokens(users)?[..usize::try_from(SESSIONS)?].to_vec())
    }

    /// Access tokens of the asker, the user that may check other subjects.
    ///
    /// # Errors
    /// Returns an error when there is no such database.
    pub fn askers_tokens(&self, users: u64) -> anyhow::Result<Vec<Bearer>> {
        Ok(self.tokens(users)?[usize::try_from(SESSIONS)?..].to_vec())
    }

    /// Refresh tokens that these sessions were loaded with.
    ///
    /// # Errors
    /// Returns an error when the keys cannot be read.
    pub fn refresh_tokens(&self, users: u64, sessions: Range<u64>) -> anyhow::Result<Vec<String>> {
        let keys = tokens::keys(&self.keys_dir)?.signing;
        sessions.map(|session| tokens::refresh_token(&keys, Shape { users }, session)).collect()
    }

    /// Measures the lower bound of the cost of a sign-in and a refresh.
    ///
    /// # Errors
    /// Returns an error when a key cannot be read or Postgres is unavailable.
    pub fn floor(&self, users: u64) -> anyhow::Result<Floor> {
        let database = services::owner_url(&self.services, &databases::name(users));
        floor::measure(self.cores.server, &self.keys_dir, &databases::passwords()?, &database)
    }

    /// Registers a tenant at a server and fills it up to the server's limits.
    ///
    /// # Errors
    /// Returns an error when the server refuses even the smallest object.
    pub fn noisy_tenant(&self, server: &Server) -> anyhow::Result<NoisyTenant> {
        self.runtime.block_on(noisy::make(server))
    }

    fn tokens(&self, users: u64) -> anyhow::Result<&[Bearer]> {
        let tokens = self.tokens.get(&users).map(Vec::as_slice);
        tokens.with_context(|| format!("no database of {users} users"))
    }

    /// Drops the databases unless they are kept, and stops the stores.
    ///
    /// # Errors
    /// Returns an error when a store does not stop.
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
