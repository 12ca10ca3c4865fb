//! The stores of a run: a Postgres and a Redis.

mod patroni;
mod private;
mod process;
mod redis_command;
mod redis_group;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sqlx::{AssertSqlSafe, Connection};
use tenantry::pg;
use tokio::sync::{Mutex, watch};
use url::Url;

use self::redis_command::redis_command;
pub use self::{
    patroni::{Patroni, Replication},
    private::PrivateStores,
    process::signal,
    redis_group::{RedisGroup, RedisOption},
};
use crate::proxy::Proxy;

/// Name of the database of a run.
pub const DATABASE: &str = "chaos";

/// Which stores a run uses.
#[derive(Clone, Debug)]
pub enum StoresOption {
    /// A Postgres and a Redis that the run starts.
    Private,
    /// Three Postgres servers under Patroni, and a Redis, which the run starts.
    Patroni(Replication),
    /// Running servers: the URL of Postgres for the schema's owner, and the URL of Redis. The run
    /// replaces the database `chaos`, and empties Redis.
    Urls { postgres: Url, redis: Url },
}

/// Running stores.
pub struct Stores {
    /// The processes, if this run started them.
    pub private: Option<PrivateStores>,
    /// The Postgres servers under Patroni, if the run uses them. Then the Postgres in `private` is
    /// not used.
    pub patroni: Option<Patroni>,
    /// The servers of Redis that fail over, if the run uses them. Then the replicas do not use the
    /// server at `redis`.
    pub redis_group: Option<Mutex<RedisGroup>>,
    /// The proxy through which the run's own connections reach the leader under Patroni.
    leader_proxy: Option<Proxy>,
    /// Address of Postgres.
    pub postgres: StoreAddress,
    /// Address of Redis.
    pub redis: StoreAddress,
    /// URL of a database for the schema's owner, without the name of the database.
    owner_url: Url,
}

/// Where a store listens.
#[derive(Clone, Debug)]
pub enum StoreAddress {
    Unix(PathBuf),
    Tcp(String),
    /// The address of the current leader under Patroni, which can change.
    Leader(watch::Receiver<String>),
}

impl StoresOption {
    /// Reads the option: `private`, `patroni`, `patroni-async`, or the two URLs with a comma
    /// between them.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "private" => Self::Private,
            "patroni" => Self::Patroni(Replication::Synchronous),
            "patroni-async" => Self::Patroni(Replication::Asynchronous),
            text => {
                let Some((postgres, redis)) = text.split_once(',') else {
                    bail!("write `private`, `patroni`, `patroni-async` or POSTGRES_URL,REDIS_URL");
                };
                Self::Urls { postgres: Url::parse(postgres)?, redis: Url::parse(redis)? }
            }
        })
    }

    /// Whether a failover of Postgres may lose acknowledged writes.
    pub fn failover_may_lose(&self) -> bool {
        matches!(self, Self::Patroni(Replication::Asynchronous))
    }
}

impl Stores {
    /// Starts or connects to the stores, and creates an empty database.
    ///
    /// # Errors
    /// Returns an error when a store is unavailable.
    pub async fn start(
        option: &StoresOption,
        redis: RedisOption,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut stores = match option {
            StoresOption::Private => Self::start_private(dir).await?,
            StoresOption::Patroni(replication) => Self::start_patroni(dir, *replication).await?,
            StoresOption::Urls { postgres, redis } => Self {
                private: None,
                patroni: None,
                redis_group: None,
                leader_proxy: None,
                postgres: StoreAddress::of_url(postgres, 5432)?,
                redis: StoreAddress::of_url(redis, 6379)?,
                owner_url: postgres.clone(),
            },
        };
        let group = RedisGroup::start(redis, &dir.with_file_name("redis")).await?;
        stores.redis_group = group.map(Mutex::new);
        stores.redis("FLUSHALL").await?;
        // An earlier run may have changed settings with `lose_commits`.
        stores.execute("postgres", "alter system reset all").await?;
        stores.execute("postgres", "select pg_reload_conf()").await?;
        stores.execute("postgres", "drop database if exists chaos with (force)").await?;
        stores.execute("postgres", "create database chaos").await?;
        Ok(stores)
    }

    async fn start_private(dir: &Path) -> anyhow::Result<Self> {
        let private = PrivateStores::start(dir).await?;
        let owner_url = Url::parse(&private.owner_url("postgres"))?;
        let (postgres, redis) = (private.postgres_socket()?, private.redis_socket());
        Ok(Self {
            private: Some(private),
            patroni: None,
            redis_group: None,
            leader_proxy: None,
            postgres: StoreAddress::Unix(postgres),
            redis: StoreAddress::Unix(redis),
            owner_url,
        })
    }

    async fn start_patroni(dir: &Path, replication: Replication) -> anyhow::Result<Self> {
        let mut stores = Self::start_private(dir).await?;
        let private = stores.private.as_ref().context("no stores")?;
        let user = private.postgres_user().await;
        let patroni = Patroni::start(&dir.with_file_name("patroni"), replication, user).await?;
        stores.postgres = StoreAddress::Leader(patroni.leader.clone());
        let proxy = Proxy::start(stores.postgres.clone()).await?;
        stores.owner_url = Url::parse(&format!("postgres://postgres@{}/", proxy.addr()))?;
        stores.patroni = Some(patroni);
        stores.leader_proxy = Some(proxy);
        Ok(stores)
    }

    /// URL of a database for the schema's owner.
    pub fn owner_url(&self, database: &str) -> String {
        let mut url = self.owner_url.clone();
        url.set_path(database);
        url.into()
    }

    /// URL of the run's database for the role of the service.
    ///
    /// # Errors
    /// Returns an error when the owner's URL has no host.
    pub fn app_url(&self) -> anyhow::Result<String> {
        let mut url = self.owner_url.clone();
        url.set_path(DATABASE);
        let is_set = url.set_username("tenantry_app").is_ok() && url.set_password(None).is_ok();
        ensure!(is_set, "the URL of Postgres has no host");
        Ok(url.into())
    }

    /// Runs a command of Redis, and returns its reply.
    ///
    /// # Errors
    /// Returns an error when Redis is unavailable or replies with an error.
    pub async fn redis(&self, command: &str) -> anyhow::Result<String> {
        redis_command(&self.redis, command).await
    }

    /// Lets Postgres acknowledge commits before they are on disk. This plants a fault that the
    /// checks must find.
    ///
    /// # Errors
    /// Returns an error when Postgres is unavailable.
    pub async fn lose_commits(&self) -> anyhow::Result<()> {
        for setting in ["synchronous_commit = off", "wal_writer_delay = '10s'"] {
            self.execute("postgres", &format!("alter system set {setting}")).await?;
        }
        self.execute("postgres", "select pg_reload_conf()").await
    }

    /// Executes statements as the schema's owner.
    ///
    /// # Errors
    /// Returns an error when Postgres is unavailable or refuses a statement.
    pub async fn execute(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let mut connection = pg::connect_owner(&self.owner_url(database).into()).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Stops the stores that this run started.
    ///
    /// # Errors
    /// Returns an error when a store does not stop in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(patroni) = self.patroni {
            patroni.stop().await?;
        }
        match self.private {
            Some(private) => private.stop().await,
            None => Ok(()),
        }
    }
}

impl StoreAddress {
    fn of_url(url: &Url, default_port: u16) -> anyhow::Result<Self> {
        let host = url.host_str().context("the URL has no host")?;
        Ok(Self::Tcp(format!("{host}:{}", url.port().unwrap_or(default_port))))
    }
}
