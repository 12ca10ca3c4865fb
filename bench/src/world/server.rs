//! A server process on its own core.

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
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server process. The process is killed when this value is dropped or this program
/// exits.
pub struct Server {
    /// Address on which the server serves gRPC.
    pub addr: SocketAddr,
    /// Number of users in the server's database, if it has one.
    pub users: Option<u64>,
    /// Time from the start of the process until the server served.
    pub start_time: Duration,
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
        let mut command = pinned_command(core, program);
        command.args(arguments(addr)).envs(settings.iter().map(|(name, value)| (name, value)));
        command.env("GRPC_ADDR", addr.to_string());
        // The log has a line for each call. If the log were stored, the benchmark would measure the
        // disk.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let child =
            command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let mut server = Self { addr, users, start_time: Duration::ZERO, child };
        if let Err(error) = server.wait_until_serving().await {
            drop(server);
            // The first start discarded the output, so a second start reads the error message.
            let output = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
            return Err(error.context(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        server.start_time = started.elapsed();
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn wait_until_serving(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.is_serving().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server exited, {status}");
            }
            ensure!(
                started.elapsed() < START_TIMEOUT,
                "the server did not serve within {START_TIMEOUT:?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn is_serving(&self) -> bool {
        let Ok(endpoint) = Endpoint::from_shared(format!("http://{}", self.addr)) else {
            return false;
        };
        let Ok(channel) = endpoint.connect().await else { return false };
        let response = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        response.is_ok_and(|response| response.get_ref().status() == ServingStatus::Serving)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Path of another program of this build, in the same directory as this program.
///
/// # Errors
/// Returns an error when the program was not built.
pub fn sibling_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe().context("this program has no path")?.with_file_name(name);
    ensure!(path.exists(), "{} does not exist: build it first", path.display());
    Ok(path)
}

/// Command that pins the server to its core, and kills the server when the starting thread ends.
/// `setpriv` and `taskset` (util-linux) each replace themselves with the next program, so the
/// child process is the server itself.
fn pinned_command(core: usize, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list", &core.to_string()]);
    command.arg(OsStr::new(program));
    command
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
