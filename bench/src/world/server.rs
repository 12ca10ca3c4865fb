//! A server as a process of its own, on a core of its own.

use std::{
    env,
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// How long a server may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server. It ends when dropped, and when this process does.
pub struct Server {
    /// Where it serves.
    pub addr: SocketAddr,
    /// The users of its database, if it has one.
    pub users: Option<u64>,
    /// What it took until it served.
    pub started_in: Duration,
    child: Child,
}

impl Server {
    /// Starts `program` on `core`, with a database of so many users, and waits until
    /// it serves. `arguments` are given the address.
    ///
    /// # Errors
    /// When the program does not start or ends, with what it said.
    pub async fn start(
        core: usize,
        program: &Path,
        users: Option<u64>,
        arguments: impl Fn(SocketAddr) -> Vec<String>,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let addr = free_address()?;
        let mut command = command(core, program);
        command.args(arguments(addr)).envs(settings.iter().map(|(name, value)| (name, value)));
        command.env("GRPC_ADDR", addr.to_string());
        // Its log has a line for each call: kept, it would be the disk that is
        // measured.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let child =
            command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let mut server = Self { addr, users, started_in: Duration::ZERO, child };
        if let Err(error) = server.serving().await {
            drop(server);
            // What it says this time is what it said.
            let said = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
            return Err(error.context(String::from_utf8_lossy(&said.stderr).into_owned()));
        }
        server.started_in = started.elapsed();
        Ok(server)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn serving(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.is_serving().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended, {status}");
            }
            ensure!(started.elapsed() < START_LIMIT, "the server does not serve");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn is_serving(&self) -> bool {
        let Ok(endpoint) = Endpoint::from_shared(format!("http://{}", self.addr)) else {
            return false;
        };
        let Ok(channel) = endpoint.connect().await else { return false };
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program of this build.
///
/// # Errors
/// When it was not built.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe().context("this program has no path")?.with_file_name(name);
    ensure!(path.exists(), "{} is not there: build it first", path.display());
    Ok(path)
}

/// util-linux's programs become what they start, so the child is the server itself:
/// it is killed when the thread that starts it ends, and stays on its core.
fn command(core: usize, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list", &core.to_string()]);
    command.arg(OsStr::new(program));
    command
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
