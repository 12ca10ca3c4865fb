//! The binary as its own process, for tests of memory, signals and open files.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

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
pub struct ServerProcess {
    pub process: Child,
    /// The task that reads the log into `lines`.
    log_reader: JoinHandle<()>,
    lines: Arc<Mutex<Vec<String>>>,
    pub addr: SocketAddr,
    pub channel: Channel,
}

impl ServerProcess {
    /// Starts a server on a new database. `overrides` replaces settings of the tests.
    pub async fn start(overrides: &[(&str, &str)]) -> Self {
        Self::start_with_file_limit(overrides, 4096).await
    }

    /// Like [`ServerProcess::start`], with at most `max_files` open file descriptors.
    pub async fn start_with_file_limit(overrides: &[(&str, &str)], max_files: u32) -> Self {
        let database = Cluster::get().new_database().await;
        let values = TestApp::values(&database);
        let settings = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
            .chain([("LOG_FORMAT", "json")])
            .chain(overrides.iter().copied());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {max_files} && exec \"$0\" serve")])
            .arg(env!("CARGO_BIN_EXE_tenantry"))
            .env_clear()
            .envs(settings)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self::run(command).await
    }

    /// Starts a server on an existing database, with a clock that differs from the real time
    /// by `offset`, such as `+90s`.
    pub async fn with_clock(database: &str, offset: &str) -> Self {
        let values = TestApp::values(database);
        let settings = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
            .chain([("LOG_FORMAT", "json")]);
        // Path of faketime's library. Loading it directly avoids a child process of faketime.
        let mut print_path = Command::new("faketime");
        print_path.args(["-f", "+0s", "printenv", "LD_PRELOAD"]);
        let library = print_path.output().await.expect("faketime is installed").stdout;
        let library = String::from_utf8(library).expect("a path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command
            .arg("serve")
            .env_clear()
            .envs(settings)
            .env("LD_PRELOAD", library.trim())
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self::run(command).await
    }

    async fn run(mut command: Command) -> Self {
        let mut process = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let (send_address, address) = oneshot::channel();
        // Read the log from the start, because a full pipe would block the server.
        let shared_lines = Arc::<Mutex<Vec<String>>>::default();
        let read_lines = shared_lines.clone();
        let log_reader = tokio::spawn(async move {
            let mut send_address = Some(send_address);
            while let Some(line) = lines.next_line().await.expect("the log is readable") {
                let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
                if event["message"] == "serving"
                    && let Some(sender) = send_address.take()
                {
                    sender.send(event["address"].as_str().expect("an address").to_owned()).ok();
                }
                read_lines.lock().expect("no panic").push(line);
            }
        });
        let address = timeout(Duration::from_mins(1), address)
            .await
            .expect("the server starts within a minute")
            .expect("the server logs its address");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        let channel = timeout(Duration::from_secs(10), async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    break channel;
                }
            }
        });
        let addr = address.parse().expect("an address");
        let channel = channel.await.expect("the server listens");
        Self { process, log_reader, lines: shared_lines, addr, channel }
    }

    /// The events of the log so far that have this message.
    pub fn log_events(&self, message: &str) -> Vec<serde_json::Value> {
        let lines = self.lines.lock().expect("no panic");
        let events = lines.iter().map(|line| serde_json::from_str(line).expect(line));
        events.filter(|event: &serde_json::Value| event["message"] == message).collect()
    }

    /// A number in `/proc/PID/status`, by name.
    pub fn proc_status_number(&self, name: &str) -> u64 {
        let pid = self.process.id().expect("the server runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let number = line.trim_start_matches(':').split_whitespace().next();
        number.and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Stops the server and returns the lines of its log.
    pub async fn stop(mut self) -> Vec<String> {
        let pid = self.process.id().expect("the server runs").to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill runs");
        let exit = timeout(Duration::from_secs(30), self.process.wait()).await;
        assert!(exit.expect("the server exits").expect("a status").success());
        self.log_reader.await.expect("the log is read");
        std::mem::take(&mut *self.lines.lock().expect("no panic"))
    }
}
