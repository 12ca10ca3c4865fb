//! The stores that a run starts, with access to their processes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use sqlx::{Connection, Row};
use tenantry::{
    dev::{Options, Services},
    pg,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use url::Url;

use super::{
    StoreAddress, patroni::ServerUser, process::StoreProcess, redis_command::redis_command,
};

/// Timeout of the start of a store.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A private Postgres and Redis. Their processes can be stopped, killed and started again.
pub struct PrivateStores {
    services: Services,
    postgres: Mutex<StoreProcess>,
    redis: Mutex<StoreProcess>,
}

impl PrivateStores {
    /// Starts the stores with their data below `dir`. Postgres writes each commit to the disk, so
    /// no acknowledged commit is lost when Postgres is killed.
    ///
    /// # Errors
    /// Returns an error when a store does not start.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let services = Services::start(dir, Options { durable: true }).await?;
        let postgres = Mutex::new(find_postgres(&services).await?);
        let redis = Mutex::new(find_redis(&services).await?);
        Ok(Self { services, postgres, redis })
    }

    /// URL of a database for the superuser, who owns the schema.
    pub fn owner_url(&self, database: &str) -> String {
        self.services.postgres_url("postgres", database)
    }

    pub fn postgres_socket(&self) -> anyhow::Result<PathBuf> {
        postgres_socket(&self.services)
    }

    pub fn redis_socket(&self) -> PathBuf {
        redis_socket(&self.services)
    }

    /// The user that Postgres runs as.
    pub async fn postgres_user(&self) -> ServerUser {
        let postgres = self.postgres.lock().await;
        ServerUser { user: postgres.user, group: postgres.group }
    }

    /// Kills Postgres with all its processes. Starts it again after `down`, and waits until it
    /// accepts connections.
    ///
    /// # Errors
    /// Returns an error when Postgres does not start.
    pub async fn kill_postgres(&self, down: Duration) -> anyhow::Result<()> {
        let mut postgres = self.postgres.lock().await;
        postgres.kill()?;
        sleep(down).await;
        postgres.wait_until_ended().await?;
        // Postgres refuses to start if the process id in its pid file or in the lock file of its
        // socket belongs to a process, also to a process that has ended but whose parent has not
        // waited for it. Postgres accepts the id of its own parent, so the pid file gets the id of
        // this program.
        let pid_file = postgres.dir.join("postmaster.pid");
        let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        std::fs::write(&pid_file, format!("{}\n{rest}", std::process::id()))?;
        let lock = format!("{}.lock", self.postgres_socket()?.display());
        std::fs::remove_file(lock).ok();
        postgres.start_again()?;
        let url = self.owner_url("postgres").into();
        let ready = async {
            while pg::connect_owner(&url).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(START_LIMIT, ready).await.context("Postgres did not start again")
    }

    /// Kills Redis. Starts it again after `down`, and waits until it answers.
    ///
    /// # Errors
    /// Returns an error when Redis does not start.
    pub async fn kill_redis(&self, down: Duration) -> anyhow::Result<()> {
        let mut redis = self.redis.lock().await;
        redis.kill()?;
        sleep(down).await;
        redis.wait_until_ended().await?;
        redis.start_again()?;
        let address = StoreAddress::Unix(self.redis_socket());
        let ready = async {
            while redis_command(&address, "PING").await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(START_LIMIT, ready).await.context("Redis did not start again")
    }

    /// Stops all processes of Postgres with SIGSTOP, and continues them.
    ///
    /// # Errors
    /// Returns an error when Postgres has ended.
    pub async fn pause_postgres(&self, duration: Duration) -> anyhow::Result<()> {
        pause(&*self.postgres.lock().await, duration).await
    }

    /// Stops Redis with SIGSTOP, and continues it.
    ///
    /// # Errors
    /// Returns an error when Redis has ended.
    pub async fn pause_redis(&self, duration: Duration) -> anyhow::Result<()> {
        pause(&*self.redis.lock().await, duration).await
    }

    /// Stops both stores.
    ///
    /// # Errors
    /// Returns an error when a store does not stop in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.postgres.into_inner().stop_if_started_again().await?;
        self.redis.into_inner().stop_if_started_again().await?;
        self.services.stop().await
    }
}

async fn pause(process: &StoreProcess, duration: Duration) -> anyhow::Result<()> {
    process.signal_all(Signal::STOP)?;
    sleep(duration).await;
    process.signal_all(Signal::CONT)
}

fn postgres_socket(services: &Services) -> anyhow::Result<PathBuf> {
    let url = Url::parse(&services.postgres_url("postgres", "postgres"))?;
    let host = url.query_pairs().find(|(key, _)| key == "host");
    let (_, dir) = host.context("the URL of Postgres has no directory")?;
    Ok(PathBuf::from(dir.into_owned()).join(".s.PGSQL.5432"))
}

fn redis_socket(services: &Services) -> PathBuf {
    PathBuf::from(services.redis_url().trim_start_matches("redis+unix://"))
}

async fn find_postgres(services: &Services) -> anyhow::Result<StoreProcess> {
    let url = services.postgres_url("postgres", "postgres").into();
    let mut connection = pg::connect_owner(&url).await?;
    let sql = "select pg_read_file('postmaster.pid')";
    let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await?;
    let text: String = row.try_get(0)?;
    connection.close().await?;
    let mut lines = text.lines();
    let pid = lines.next().context("an empty pid file")?.trim().parse()?;
    let dir = PathBuf::from(lines.next().context("a pid file without a directory")?);
    StoreProcess::of_running(pid, dir)
}

/// Finds the process of Redis. Redis replaces its arguments in `/proc`, so they are built here
/// again.
async fn find_redis(services: &Services) -> anyhow::Result<StoreProcess> {
    let socket = redis_socket(services);
    let address = StoreAddress::Unix(socket.clone());
    let info = redis_command(&address, "INFO server").await?;
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:"));
    let pid = pid.context("Redis does not report its process id")?.trim().parse()?;
    let config = redis_command(&address, "CONFIG GET dir").await?;
    let dir =
        config.lines().last().context("Redis does not report its directory")?.trim().to_owned();
    ensure!(Path::new(&dir).is_dir(), "Redis has no directory {dir}");
    let mut process = StoreProcess::of_running(pid, PathBuf::from(&dir))?;
    let mut command = Command::new(&process.program);
    command.args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"]).arg(&socket);
    command.args(["--dir", &dir, "--save", "", "--appendonly", "yes"]);
    process.name = "redis-server".into();
    process.arguments = command.get_args().map(ToOwned::to_owned).collect();
    Ok(process)
}
