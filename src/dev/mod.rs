//! A private Postgres and a private Redis, for development and for tests.
//!
//! Both listen only on Unix sockets in a directory that no other user can enter, so they do not
//! conflict with servers that already run on the machine. Reading order: [`Services::start`]
//! below, `data_dir` (the directories and their owner), `group` (how the servers end with this
//! process), then `postgres` and `redis`.

mod data_dir;
mod group;
mod postgres;
mod program;
mod redis;
mod user;
mod wait;

use std::{fmt::Write, path::Path};

use data_dir::DataDir;
use group::Group;
pub use program::Options;

/// The running servers.
///
/// [`stop`](Services::stop) ends them and waits for their end. Dropping this value, or the end
/// of this process for any reason, also ends them, but without waiting.
#[derive(Debug)]
pub struct Services {
    // Dropped in this order: the servers are told to end before the directory is unlocked.
    group: Group,
    dir: DataDir,
}

impl Services {
    /// Starts both servers with their state below `dir`, which is created if it does not exist.
    /// Returns when both answer. The first start creates the Postgres cluster; later starts
    /// keep it.
    ///
    /// # Errors
    ///
    /// When a program is not installed, when another process runs servers from `dir`, when
    /// another user owns `dir` or its contents, or when a server does not start. The error then
    /// contains the end of that server's log.
    pub async fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        let dir = DataDir::claim(dir).await?;
        let mut group = Group::new(&dir)?;
        if let Err(error) = launch(&dir, &mut group, options).await {
            return Err(match group.stop().await {
                Ok(()) => error,
                Err(stop) => error.context(format!("and the servers did not end: {stop:#}")),
            });
        }
        Ok(Self { group, dir })
    }

    /// The URL of `database` for the role `user`. Every role may connect without a password;
    /// the superuser is `postgres`.
    #[must_use]
    pub fn postgres_url(&self, user: &str, database: &str) -> String {
        // The port is explicit, because PGPORT in the environment would replace a missing port.
        format!(
            "postgres://{}@localhost:{}/{}?host={}",
            percent_encode(user),
            data_dir::POSTGRES_PORT,
            percent_encode(database),
            percent_encode(&self.dir.run.to_string_lossy()),
        )
    }

    /// The URL of Redis, which has no password.
    #[must_use]
    pub fn redis_url(&self) -> String {
        // Clients do not decode this path; `data_dir` chose one that needs no encoding.
        format!("redis+unix://{}", self.dir.redis_socket().display())
    }

    /// Messages for the person who started the servers, one sentence each: where state is when
    /// it cannot be below `dir`. Usually empty.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.dir.notes
    }

    /// Ends both servers and waits for their end. Postgres gets its fast shutdown, which rolls
    /// back open transactions.
    ///
    /// # Errors
    ///
    /// When a server had to be killed, because it did not end within half a minute.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.group.stop().await
    }
}

async fn launch(dir: &DataDir, group: &mut Group, options: Options) -> anyhow::Result<()> {
    let redis = redis::find()?;
    let postgres = postgres::Programs::find(dir)?;

    redis::spawn(&redis, dir, group, options).await?;
    postgres.spawn(dir, group, options).await?;
    postgres.ready(dir, group).await?;
    redis::ready(dir, group).await
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
