//! `tenantry dev`: a command that starts Postgres, Redis and the server. At its end, it stops the
//! programs that it started.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tempfile::tempdir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};
use tonic::transport::Endpoint;

use crate::harness::{Client, Cluster};

/// A running `tenantry dev`.
struct Dev {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    /// The lines of the output before the server started.
    lines_before_start: Vec<String>,
    addr: String,
}

impl Dev {
    async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.arg("dev").env_clear().env("PATH", std::env::var("PATH").expect("PATH"));
        command.env("DEV_DIR", dir).env("GRPC_ADDR", "127.0.0.1:0").envs(settings.iter().copied());
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts");
        let output = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut dev = Self { process, output, lines_before_start: Vec::new(), addr: String::new() };
        timeout(Duration::from_mins(1), dev.wait_until_serving()).await.expect("the server starts");
        dev
    }

    async fn wait_until_serving(&mut self) {
        while let Some(line) = self.output.next_line().await.expect("a line") {
            if let Some(rest) = line.strip_prefix("serving gRPC on ") {
                rest.split(';').next().expect("an address").clone_into(&mut self.addr);
                return;
            }
            self.lines_before_start.push(line);
        }
        panic!("the command ended after this output: {:?}", self.lines_before_start);
    }

    async fn sign_in(&self, dir: &Path, account: &str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr)).expect("a URL");
        let channel = endpoint.connect().await.expect("the server listens");
        let file = fs::read_to_string(dir.join("credentials.json")).expect("credentials");
        let accounts: Value = serde_json::from_str(&file).expect("JSON");
        let field = |key: &str| accounts[account][key].as_str().expect("text").to_owned();
        Client::anonymous(channel)
            .login(&field("tenant"), &field("email"), &field("password"))
            .await
    }

    /// Interrupts the process as Ctrl-C does, and waits for its end.
    async fn interrupt(mut self) {
        let pid = self.process.id().expect("the command runs").to_string();
        let kill_status =
            Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs");
        assert!(kill_status.success());
        let exit_status = timeout(Duration::from_secs(20), self.process.wait()).await;
        assert!(exit_status.expect("the command ends").expect("a status").success());
    }
}

/// Waits until the servers in a folder have ended.
async fn wait_until_servers_ended(dir: &Path) {
    let runtime_files = [dir.join("data/postmaster.pid"), dir.join("run/redis.sock")];
    let servers_ended = async {
        while runtime_files.iter().any(|file| file.exists()) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), servers_ended).await.expect("the servers end");
}

#[tokio::test]
async fn the_credentials_file_has_working_passwords() {
    let dir = tempdir().expect("a folder");
    let dev = Dev::start(dir.path(), &[]).await;

    let mode = fs::metadata(dir.path().join("credentials.json")).expect("a file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let demo = dev.sign_in(dir.path(), "demo_admin").await;
    assert_eq!((demo.slug.as_str(), demo.email.as_str()), ("demo", "admin@demo.local"));
    let platform = dev.sign_in(dir.path(), "platform_admin").await;
    assert_eq!(platform.slug, "platform");
    assert!(
        dev.lines_before_start.iter().any(|line| line.contains("grpcurl -plaintext")),
        "{:?}",
        dev.lines_before_start
    );

    dev.interrupt().await;
    wait_until_servers_ended(dir.path()).await;
}

#[tokio::test]
async fn after_a_kill_the_servers_end_and_the_next_start_has_the_data() {
    let dir = tempdir().expect("a folder");
    let mut dev = Dev::start(dir.path(), &[]).await;
    let demo = dev.sign_in(dir.path(), "demo_admin").await;
    let user = demo.create_user("kept@demo.test").await;
    let credentials = fs::read(dir.path().join("credentials.json")).expect("credentials");
    dev.process.kill().await.expect("killed");
    wait_until_servers_ended(dir.path()).await;

    let dev = Dev::start(dir.path(), &[]).await;
    let credentials_after_restart =
        fs::read(dir.path().join("credentials.json")).expect("credentials");
    assert_eq!(credentials, credentials_after_restart);
    let demo = dev.sign_in(dir.path(), "demo_admin").await;
    let request = tenantry::proto::v1::GetUserRequest { user_id: user };
    demo.users().get_user(request).await.expect("the user is still there");
    dev.interrupt().await;
}

#[tokio::test]
async fn lost_credentials_are_created_again() {
    let dir = tempdir().expect("a folder");
    Dev::start(dir.path(), &[]).await.interrupt().await;
    fs::remove_file(dir.path().join("credentials.json")).expect("removed");

    let dev = Dev::start(dir.path(), &[]).await;
    dev.sign_in(dir.path(), "demo_admin").await;
    dev.sign_in(dir.path(), "platform_admin").await;
    dev.interrupt().await;
}

#[tokio::test]
async fn configured_stores_are_used_and_not_stopped() {
    let dir = tempdir().expect("a folder");
    let cluster = Cluster::get();
    cluster.empty_database("dev_database").await;
    let (postgres, redis) = (cluster.owner_url("dev_database"), cluster.redis_url());
    let settings = [("DATABASE_URL", postgres.as_str()), ("REDIS_URL", redis.as_str())];

    let dev = Dev::start(dir.path(), &settings).await;
    assert!(!dir.path().join("data").exists(), "a private Postgres was started");
    dev.sign_in(dir.path(), "demo_admin").await;
    dev.interrupt().await;
    cluster.connect_owner("dev_database").await;
}
