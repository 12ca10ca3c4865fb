//! The binary as its own process, for tests of memory, signals and open files.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tenantry::config::SETTINGS;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use super::{Cluster, TestApp};

/// A running server process and its address.
pub struct Serving {
    pub process: Child,
    log: JoinHandle<Vec<String>>,
    pub addr: SocketAddr,
    pub channel: Channel,
}

impl Serving {
    /// Starts a server on a new database. `other` overrides the settings of the tests.
    pub async fn start(other: &[(&str, &str)]) -> Self {
        Self::with_files(other, 4096).await
    }

    /// Like [`Serving::start`], with at most `files` open file descriptors.
    pub async fn with_files(other: &[(&str, &str)], files: u32) -> Self {
        let database = Cluster::get().new_database().await;
        let values = TestApp::values(&database);
        let settings = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
            .chain([("LOG_FORMAT", "json")])
            .chain(other.iter().copied());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {files} && exec \"$0\" serve")])
            .arg(env!("CARGO_BIN_EXE_tenantry"))
            .env_clear()
            .envs(settings)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self::run(command).await
    }

    /// Starts a server on an existing database, with a clock that is wrong by `wrong_by`, such
    /// as `+90s`.
    pub async fn with_clock(database: &str, wrong_by: &str) -> Self {
        let values = TestApp::values(database);
        let settings = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
            .chain([("LOG_FORMAT", "json")]);
        // Path of faketime's library. Loading it directly avoids a child process of faketime.
        let mut library = Command::new("faketime");
        library.args(["-f", "+0s", "printenv", "LD_PRELOAD"]);
        let library = library.output().await.expect("faketime is installed").stdout;
        let library = String::from_utf8(library).expect("a path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command
            .arg("serve")
            .env_clear()
            .envs(settings)
            .env("LD_PRELOAD", library.trim())
            .env("FAKETIME", wrong_by)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self::run(command).await
    }

    async fn run(mut command: Command) -> Self {
        let mut process =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let (send_address, address) = oneshot::channel();
        // Read the log from the start, because a full pipe would block the server.
        let log = tokio::spawn(async move {
            let (mut log, mut send_address) = (Vec::new(), Some(send_address));
            while let Some(line) = lines.next_line().await.expect("its log") {
                let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
                if event["message"] == "serving"
                    && let Some(sender) = send_address.take()
                {
                    sender.send(event["address"].as_str().expect("an address").to_owned()).ok();
                }
                log.push(line);
            }
            log
        });
        let address =
            timeout(Duration::from_mins(1), address).await.expect("in time").expect("serves");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        let channel = timeout(Duration::from_secs(10), async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    break channel;
                }
            }
        });
        let addr = address.parse().expect("an address");
        Self { process, log, addr, channel: channel.await.expect("it listens") }
    }

    /// A number in `/proc/PID/status`, by name.
    pub fn status(&self, name: &str) -> u64 {
        let pid = self.process.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let number = line.trim_start_matches(':').split_whitespace().next();
        number.and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Stops the server and returns the lines of its log.
    pub async fn stop(mut self) -> Vec<String> {
        let pid = self.process.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
        let ended = timeout(Duration::from_secs(30), self.process.wait()).await;
        assert!(ended.expect("it ends").expect("a status").success());
        self.log.await.expect("its log")
    }
}
