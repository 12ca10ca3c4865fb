//! The binary, serving: for what only a process of its own shows.

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

/// The binary, serving, and where.
pub struct Serving {
    pub process: Child,
    log: JoinHandle<Vec<String>>,
    pub addr: SocketAddr,
    pub channel: Channel,
}

impl Serving {
    /// With the tests' settings, but for these.
    pub async fn start(other: &[(&str, &str)]) -> Self {
        Self::with_files(other, 4096).await
    }

    /// The same, with no more than so many files open.
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

    /// On a database that others serve too, with a clock that is wrong by this.
    pub async fn with_clock(database: &str, wrong_by: &str) -> Self {
        let values = TestApp::values(database);
        let settings = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
            .chain([("LOG_FORMAT", "json")]);
        // Where its library is, which it would otherwise load into a child of its own.
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
        let (tell, told) = oneshot::channel();
        // Read from the start: a full pipe would stop the server.
        let log = tokio::spawn(async move {
            let (mut log, mut tell) = (Vec::new(), Some(tell));
            while let Some(line) = lines.next_line().await.expect("its log") {
                let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
                if event["message"] == "serving"
                    && let Some(tell) = tell.take()
                {
                    tell.send(event["address"].as_str().expect("an address").to_owned()).ok();
                }
                log.push(line);
            }
            log
        });
        let address =
            timeout(Duration::from_mins(1), told).await.expect("in time").expect("serves");
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

    /// What the kernel says of it in `/proc`, by name.
    pub fn status(&self, name: &str) -> u64 {
        let pid = self.process.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let number = line.trim_start_matches(':').split_whitespace().next();
        number.and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Stops it; all that it wrote.
    pub async fn stop(mut self) -> Vec<String> {
        let pid = self.process.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
        let ended = timeout(Duration::from_secs(30), self.process.wait()).await;
        assert!(ended.expect("it ends").expect("a status").success());
        self.log.await.expect("its log")
    }
}
