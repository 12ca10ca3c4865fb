//! The measured system: a private Postgres and Redis (the stores), databases of several sizes, and
//! servers.
//!
//! All data is loaded before the first measurement, on all cores. Then the stores are restarted on
//! their own cores, which do not include the server's core.

pub mod data;
pub mod databases;
pub mod minimum_cost;
pub mod noisy;
pub mod server;
pub mod shape;
mod statements;
mod stores;
pub mod tokens;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context;
use data::LoadedDatabase;
use minimum_cost::MinimumCost;
use noisy::NoisyTenant;
use server::Server;
use shape::{CHECKER_SESSIONS, SESSIONS, Shape};
use tenantry::{
    dev::Services,
    tokens::{Keyring, pem},
};
use tokens::Bearer;
use tokio::runtime::Runtime;

use crate::cores::{Cores, pin};

/// The stores with their data. Starts servers that use them.
pub struct World {
    /// The databases, by number of users.
    pub databases: BTreeMap<u64, LoadedDatabase>,
    /// Assignment of the cores.
    pub cores: Cores,
    stores: Services,
    runtime: Runtime,
    keys_dir: PathBuf,
    /// Access tokens of all sessions, by number of users in the sessions' database.
    tokens: BTreeMap<u64, Vec<Bearer>>,
    keep_databases: bool,
}

impl World {
    /// Loads databases of these sizes below `dir`, then restarts the stores on their cores. With
    /// `keep_databases`, complete databases of an earlier run are used again, and the databases are
    /// not dropped at the end.
    ///
    /// # Errors
    /// Returns an error when a program is not installed, a store does not start, or the disk is
    /// full.
    pub fn prepare(
        dir: &Path,
        cores: Cores,
        sizes: &[u64],
        keep_databases: bool,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let keys_dir = dir.join("keys");
        let keys = tokens::load_keys(&keys_dir)?;
        let stores_dir = dir.join("stores");

        let stores = stores::start(&stores_dir, None)?;
        for note in stores.notes() {
            crate::say(note);
        }
        let tokens = sign_tokens(&keys.keyring, sizes)?;
        let databases =
            runtime.block_on(databases::create(&stores, &keys, sizes, keep_databases))?;
        runtime.block_on(statements::enable_counting_at_next_start(&stores))?;
        runtime.block_on(stores.stop())?;
        // Without this sync, the kernel would write the data to disk during a measurement.
        rustix::fs::sync();

        pin(&cores.load)?;
        let stores = stores::start(&stores_dir, Some(&cores.stores))?;
        Ok(Self { databases, cores, stores, runtime, keys_dir, tokens, keep_databases })
    }

    /// Starts a server on the database of this size. `settings` replace the defaults.
    ///
    /// # Errors
    /// Returns an error when the server does not start.
    pub fn start_server(&self, users: u64, settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let keys = pem::paths(&self.keys_dir);
        let mut all_settings = vec![
            ("DATABASE_URL", self.stores.postgres_url("tenantry_app", &databases::name(users))),
            ("REDIS_URL", self.stores.redis_url()),
            ("JWT_ACCESS_PRIVATE_KEY_PATH", keys.access_private.display().to_string()),
            ("JWT_ACCESS_PUBLIC_KEY_PATH", keys.access_public.display().to_string()),
            ("JWT_REFRESH_PRIVATE_KEY_PATH", keys.refresh_private.display().to_string()),
            ("JWT_REFRESH_PUBLIC_KEY_PATH", keys.refresh_public.display().to_string()),
            ("MASTER_KEY_PATH", tokens::master_key_path(&self.keys_dir).display().to_string()),
            // Several servers run at the same time, so no server may use the fixed HTTP port.
            ("HTTP_ADDR", "off".to_owned()),
            // All sign-ins come from one address, which would exceed the default limit.
            ("RATE_LIMIT_SIGN_IN", "off".to_owned()),
        ];
        all_settings.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = server::sibling_program("tenantry")?;
        let arguments = |_| vec!["serve".to_owned()];
        let start =
            Server::start(self.cores.server, &program, Some(users), arguments, &all_settings);
        self.runtime.block_on(start)
    }

    /// Starts the minimal gRPC server.
    ///
    /// # Errors
    /// Returns an error when the server does not start.
    pub fn start_bare_server(&self) -> anyhow::Result<Server> {
        let program = std::env::current_exe().context("this program has no path")?;
        let arguments = |addr| vec!["bare".to_owned(), format!("{addr}")];
        let start = Server::start(self.cores.server, &program, None, arguments, &[]);
        self.runtime.block_on(start)
    }

    /// Number of statements that the servers have sent to a database so far. Statements of
    /// background work are not counted.
    ///
    /// # Errors
    /// Returns an error when Postgres is unavailable.
    pub fn statement_count(&self, users: u64) -> anyhow::Result<u64> {
        self.runtime.block_on(statements::count(&self.stores, &databases::name(users)))
    }

    /// Access tokens of the subjects (the users that scenarios check, not the checker), in the
    /// order of the sessions.
    ///
    /// # Errors
    /// Returns an error when there is no such database.
    pub fn checked_user_tokens(&self, users: u64) -> anyhow::Result<Vec<Bearer>> {
        Ok(self.tokens(users)?[..usize::try_from(SESSIONS)?].to_vec())
    }

    /// Access tokens of the checker (the user that may check other subjects).
    ///
    /// # Errors
    /// Returns an error when there is no such database.
    pub fn checker_tokens(&self, users: u64) -> anyhow::Result<Vec<Bearer>> {
        Ok(self.tokens(users)?[usize::try_from(SESSIONS)?..].to_vec())
    }

    /// Refresh tokens that match the loaded rows of these sessions.
    ///
    /// # Errors
    /// Returns an error when the keys cannot be read.
    pub fn refresh_tokens(&self, users: u64, sessions: Range<u64>) -> anyhow::Result<Vec<String>> {
        let keys = tokens::load_keys(&self.keys_dir)?.keyring;
        sessions.map(|session| tokens::refresh_token(&keys, Shape { users }, session)).collect()
    }

    /// Measures, without a server, the CPU time of the steps that every sign-in or refresh needs:
    /// password hash, signatures, commit.
    ///
    /// # Errors
    /// Returns an error when a key cannot be read or Postgres is unavailable.
    pub fn minimum_cost(&self, users: u64) -> anyhow::Result<MinimumCost> {
        let database = stores::owner_url(&self.stores, &databases::name(users));
        let passwords = databases::default_password_settings()?;
        minimum_cost::measure(self.cores.server, &self.keys_dir, &passwords, &database)
    }

    /// Registers a tenant at a server and fills it nearly up to the server's limits.
    ///
    /// # Errors
    /// Returns an error when the server cannot be reached, refuses the tenant or a user, or accepts
    /// no role or no scope.
    pub fn create_noisy_tenant(&self, server: &Server) -> anyhow::Result<NoisyTenant> {
        self.runtime.block_on(noisy::create(server))
    }

    fn tokens(&self, users: u64) -> anyhow::Result<&[Bearer]> {
        let tokens = self.tokens.get(&users).map(Vec::as_slice);
        tokens.with_context(|| format!("no database of {users} users"))
    }

    /// Drops the databases, unless they are to be kept, and stops the stores.
    ///
    /// # Errors
    /// Returns an error when a store does not stop.
    pub fn shut_down(self) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            if !self.keep_databases {
                databases::drop(&self.stores, self.databases.keys()).await?;
            }
            self.stores.stop().await
        })
    }
}

fn sign_tokens(keyring: &Keyring, sizes: &[u64]) -> anyhow::Result<BTreeMap<u64, Vec<Bearer>>> {
    let sign =
        |users| tokens::sign_access_tokens(keyring, Shape { users }, SESSIONS + CHECKER_SESSIONS);
    sizes.iter().map(|users| Ok((*users, sign(*users)?))).collect()
}
