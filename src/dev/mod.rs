//! A private Postgres and a private Redis, for development and for tests.
//!
//! Both servers listen only on Unix sockets in a directory that no other user can enter. So they do
//! not conflict with servers that already run on the machine. Read [`Services::start`] first, then
//! `data_dir` (the directories and their owner), `group` (how the servers end with this process),
//! `postgres` and `redis`.

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
/// [`stop`](Services::stop) ends the servers and waits for their end. A drop of this value, or the
/// end of this process for any reason, also ends the servers, but does not wait.
#[derive(Debug)]
pub struct Services {
    // The fields are dropped in this order: the servers begin to end before the directory is
    // unlocked.
    group: Group,
    dir: DataDir,
}

impl Services {
    /// Starts both servers with their data below `dir`, which is created if it does not exist.
    /// Returns when both servers are ready. The first start creates the Postgres cluster, and later
    /// starts use this cluster.
    ///
    /// # Errors
    ///
    /// Fails when a program is not installed, when another process runs servers from `dir`, or when
    /// another user owns `dir` or its contents. Also fails when a server does not start; then the
    /// error contains the last lines of the server's log.
    pub async fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        let dir = DataDir::claim(dir).await?;
        let mut group = Group::new(&dir)?;
        if let Err(error) = launch(&dir, &mut group, options).await {
            return Err(match group.stop().await {
                Ok(()) => error,
                Err(stop_error) => {
                    error.context(format!("and the servers did not end: {stop_error:#}"))
                }
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
        // Clients do not decode this path, so `data_dir` chose a path that needs no encoding.
        format!("redis+unix://{}", self.dir.redis_socket().display())
    }

    /// Messages for the person who started the servers, one sentence each. Each message says where
    /// files are that cannot be below `dir`. Usually there are none.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.dir.notes
    }

    /// Ends both servers and waits for their end. Postgres gets its fast shutdown, which rolls
    /// back open transactions.
    ///
    /// # Errors
    ///
    /// Fails when a server had to be killed, because it did not end within half a minute.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.group.stop().await
    }
}

async fn launch(dir: &DataDir, group: &mut Group, options: Options) -> anyhow::Result<()> {
    let redis = redis::find()?;
    let postgres = postgres::Programs::find(dir)?;

    redis::spawn(&redis, dir, group, options).await?;
    postgres.spawn(dir, group, options).await?;
    postgres.wait_until_ready(dir, group).await?;
    redis::wait_until_ready(dir, group).await
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
