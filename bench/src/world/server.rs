//! A server as its own process on its own core.

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

/// Timeout for the start of a server.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server process. The process is killed when this value is dropped or this program
/// exits.
pub struct Server {
    /// Address on which it serves.
    pub addr: SocketAddr,
    /// Number of users in its database, if it has one.
    pub users: Option<u64>,
    /// Time from the start of the process until it served.
    pub started_in: Duration,
    child: Child,
}

impl Server {
    /// Starts `program` on `core` and waits until the server answers health checks. `users` is the
    /// number of users in the server's database. `arguments` makes the command line from the
    /// server's address.
    ///
    /// # Errors
    /// Returns an error with the program's output when the program does not start or exits early.
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
        // The log has a line for each call. With a stored log, the benchmark would measure the
        // disk.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let child =
            command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let mut server = Self { addr, users, started_in: Duration::ZERO, child };
        if let Err(error) = server.serving().await {
            drop(server);
            // The first start discarded the output, so a second start reads the error message.
            let output = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
            return Err(error.context(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        server.started_in = started.elapsed();
        Ok(server)
    }

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
        // The process may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Path of another program of this build.
///
/// # Errors
/// Returns an error when the program was not built.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe().context("this program has no path")?.with_file_name(name);
    ensure!(path.exists(), "{} is not there: build it first", path.display());
    Ok(path)
}

/// Command that pins the server to its core, and kills the server when the starting thread ends.
/// `setpriv` and `taskset` (util-linux) each replace themselves with the next program, so the
/// child process is the server itself.
fn command(core: usize, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list", &core.to_string()]);
    command.arg(OsStr::new(program));
    command
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
