//! A private Postgres and a private Redis, for development and for the tests.
//!
//! Both listen only on Unix sockets in a directory that nobody else can enter, so they can neither
//! meet nor disturb a server that the machine runs already. Read in this order: [`Services::start`]
//! below, `data_dir` (where everything lives, and as which user), `group` (how nothing is ever left
//! running), then `postgres` and `redis`.

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
/// [`stop`](Services::stop) ends them and waits for it. Dropping this value ends them as well, only
/// without waiting, and so does the death of this process, however it dies.
#[derive(Debug)]
pub struct Services {
    // Dropped in this order: the servers are told to end before the directory is free for others.
    group: Group,
    dir: DataDir,
}

impl Services {
    /// Starts both servers with their state below `dir`, which is made if absent, and returns once
    /// both answer. The first start creates the Postgres cluster; later ones find it as it was.
    ///
    /// # Errors
    ///
    /// When a program is not installed, when another process has servers running from `dir`, when
    /// `dir` or its contents belong to another user, or when a server does not come up; the error
    /// then carries the end of that server's log.
    pub async fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        let dir = DataDir::claim(dir).await?;
        let mut group = Group::new(&dir)?;
        if let Err(error) = launch(&dir, &mut group, options).await {
            return Err(match group.stop().await {
                Ok(()) => error,
                Err(stop) => error.context(format!("and what was running did not end: {stop:#}")),
            });
        }
        Ok(Self { group, dir })
    }

    /// The URL under which `user` reaches `database`. Every role may connect without a password;
    /// the superuser is `postgres`.
    #[must_use]
    pub fn postgres_url(&self, user: &str, database: &str) -> String {
        // The port is spelled out because a PGPORT in the environment would otherwise replace it.
        format!(
            "postgres://{}@localhost:{}/{}?host={}",
            percent_encode(user),
            data_dir::POSTGRES_PORT,
            percent_encode(database),
            percent_encode(&self.dir.run.to_string_lossy()),
        )
    }

    /// The URL under which Redis is reached; it has no password.
    #[must_use]
    pub fn redis_url(&self) -> String {
        // Clients take this path literally, without decoding; `data_dir` chose one that needs none.
        format!("redis+unix://{}", self.dir.redis_socket().display())
    }

    /// What the person who started this should know, one sentence each: where state had to be put
    /// when it could not be below `dir`. Usually empty.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.dir.notes
    }

    /// Ends both servers, Postgres by its fast shutdown (open transactions are rolled back), and
    /// returns when both are gone.
    ///
    /// # Errors
    ///
    /// When a server had to be killed because it did not end within half a minute.
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
