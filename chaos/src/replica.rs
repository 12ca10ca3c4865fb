//! A replica: the real program as its own process, with a proxy to each store.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    proxy::Proxy,
    stores::{self, DATABASE, Stores},
};

/// Timeout of the start and of the stop of a replica. It is long, because another fault may keep
/// the replica from its Postgres.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Pause before a process that ended at its start is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What all replicas need to start.
pub struct Program {
    /// Path of the program `tenantry`.
    pub path: PathBuf,
    /// Path of the program of the previous release, if the run has one.
    pub previous: Option<PathBuf>,
    /// Settings, the same for all replicas.
    pub settings: Vec<(&'static str, String)>,
    /// Directory of the logs.
    pub log_dir: PathBuf,
    /// Path of faketime's library, if it is installed.
    pub faketime: Option<String>,
}

impl Program {
    /// The release that a run starts with.
    pub fn first_release(&self) -> Release {
        if self.previous.is_some() { Release::Previous } else { Release::Current }
    }

    /// Path of the program of a release.
    ///
    /// # Errors
    /// Returns an error when the run has no program of the previous release.
    pub fn path_of(&self, release: Release) -> anyhow::Result<&Path> {
        match release {
            Release::Current => Ok(&self.path),
            Release::Previous => {
                self.previous.as_deref().context("no program of the previous release")
            }
        }
    }
}

/// Which release of the program a replica runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Previous,
    Current,
}

impl Release {
    /// The other release.
    pub fn other(self) -> Self {
        match self {
            Self::Previous => Self::Current,
            Self::Current => Self::Previous,
        }
    }
}

/// The connections of a replica to the stores.
pub struct Links {
    pub postgres: Proxy,
    pub redis: Proxy,
    redis_url: String,
}

impl Links {
    /// Starts a proxy to each store.
    ///
    /// # Errors
    /// Returns an error when no port is free.
    pub async fn start(stores: &Stores) -> anyhow::Result<Self> {
        let postgres = Proxy::start(stores.postgres.clone()).await?;
        let redis = Proxy::start(stores.redis.clone()).await?;
        let redis_url = match &stores.redis_group {
            Some(group) => group.lock().await.url(),
            None => format!("redis://{}", redis.addr()),
        };
        Ok(Self { postgres, redis, redis_url })
    }
}

/// A replica. Its process is killed when this value is dropped.
pub struct Replica {
    number: usize,
    /// The release that the next start runs.
    pub release: Release,
    pub addr: SocketAddr,
    /// Address of the metrics.
    pub http_addr: SocketAddr,
    postgres: SocketAddr,
    redis_url: String,
    child: Option<Child>,
    /// The difference of the process's clock from the real time.
    clock: Option<String>,
    /// Whether a fault has started the process, and the system has not recovered since. Such a
    /// process may end by itself, because the program ends when it cannot reach Postgres at its
    /// start.
    is_starting: bool,
    /// Whether the log is read.
    reads_log: watch::Sender<bool>,
}

impl Replica {
    /// Starts the process, with the program of the previous release if the run has one.
    ///
    /// # Errors
    /// Returns an error when the process does not serve in time.
    pub async fn start(number: usize, program: &Program, links: &Links) -> anyhow::Result<Self> {
        let free_address = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
        let mut replica = Self {
            number,
            release: program.first_release(),
            addr: free_address()?,
            http_addr: free_address()?,
            postgres: links.postgres.addr(),
            redis_url: links.redis_url.clone(),
            child: None,
            clock: None,
            is_starting: false,
            reads_log: watch::Sender::new(true),
        };
        replica.start_process(program, None)?;
        replica.wait_until_listening(program).await?;
        replica.is_starting = false;
        Ok(replica)
    }

    /// Starts the process. `clock` is the difference of its clock from the real time, such as
    /// `+20s`.
    ///
    /// # Errors
    /// Returns an error when the program cannot be started.
    pub fn start_process(&mut self, program: &Program, clock: Option<&str>) -> anyhow::Result<()> {
        // `setpriv` replaces itself with the program, and ends it when this program dies.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program.path_of(self.release)?)
            .arg("serve");
        command.env_clear().envs(program.settings.iter().map(|(name, value)| (name, value)));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let postgres = self.postgres;
        command
            .env("DATABASE_URL", format!("postgres://tenantry_app@{postgres}/{DATABASE}"))
            .env("REDIS_URL", &self.redis_url)
            .env("GRPC_ADDR", self.addr.to_string())
            .env("HTTP_ADDR", self.http_addr.to_string())
            .env("LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(offset) = clock {
            let library = program.faketime.as_ref().context("faketime is not installed")?;
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME", offset)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.clock = clock.map(str::to_owned);
        self.is_starting = true;
        let mut child = command.spawn().context("setpriv")?;
        let log = child.stderr.take().context("the log is not a pipe")?;
        let file = program.log_dir.join(format!("replica-{}.log", self.number));
        tokio::spawn(append_log(log, file, self.reads_log.subscribe()));
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the process accepts connections. Starts it again if it ends, because another
    /// fault may keep it from its Postgres.
    ///
    /// # Errors
    /// Returns an error when it does not listen in time.
    pub async fn wait_until_listening(&mut self, program: &Program) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while tokio::net::TcpStream::connect(self.addr).await.is_err() {
            if Instant::now() > deadline {
                bail!("replica {} does not listen; see its log", self.number);
            }
            self.start_again_if_ended(program).await?;
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts the process again if a fault has started it and it has ended, as an orchestrator
    /// does.
    ///
    /// # Errors
    /// Returns an error when the program cannot be started.
    pub async fn start_again_if_ended(&mut self, program: &Program) -> anyhow::Result<()> {
        let Some(child) = self.child.as_mut().filter(|_| self.is_starting) else { return Ok(()) };
        if child.try_wait()?.is_some() {
            sleep(RESTART_PAUSE).await;
            let clock = self.clock.clone();
            self.start_process(program, clock.as_deref())?;
        }
        Ok(())
    }

    /// Notes that the system has recovered. From now on, the process must not end by itself.
    pub fn finish_start(&mut self) {
        self.is_starting = false;
    }

    /// Kills the process and waits for its end.
    ///
    /// # Errors
    /// Returns an error when the process does not end.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends the process gracefully, with SIGTERM, as an update of the service does.
    ///
    /// # Errors
    /// Returns an error when the process does not end in time.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            // The process has ended already if it has found no Postgres.
            if let Some(pid) = child.id().filter(|_| matches!(child.try_wait(), Ok(None))) {
                stores::signal(pid, Signal::TERM)?;
            }
            timeout(START_LIMIT, child.wait()).await.context("a replica did not stop")??;
        }
        Ok(())
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// Returns an error when the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        stores::signal(self.pid()?, signal)
    }

    /// The process id.
    ///
    /// # Errors
    /// Returns an error when the process has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.as_ref().and_then(Child::id).context("the replica does not run")
    }

    /// Reads the log, or leaves it unread, so that the pipe becomes full.
    pub fn set_log_reading(&self, reads: bool) {
        self.reads_log.send_replace(reads);
    }
}

/// Appends the log of a process to a file, while `reads` is true.
async fn append_log(
    mut log: impl AsyncRead + Unpin,
    file: PathBuf,
    mut reads: watch::Receiver<bool>,
) {
    let Ok(mut file) = File::options().create(true).append(true).open(file).await else { return };
    let mut buffer = vec![0; 64 * 1024];
    while reads.wait_for(|reads| *reads).await.is_ok() {
        match log.read(&mut buffer).await {
            Ok(read @ 1..) => {
                if file.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Path of faketime's library; `None` if faketime is not installed.
pub async fn faketime_library() -> Option<String> {
    // The library is loaded directly, which avoids a parent process of the replica.
    let mut command = Command::new("faketime");
    command.args(["-f", "+0s", "printenv", "LD_PRELOAD"]);
    let output = command.output().await.ok()?;
    let library = String::from_utf8(output.stdout).ok()?;
    Some(library.trim().to_owned()).filter(|library| !library.is_empty())
}
