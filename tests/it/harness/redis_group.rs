//! Redis Sentinel and Redis Cluster for one test, as processes on loopback. Dropping the value
//! stops the processes.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::wait_until;

/// Several servers of Redis that fail over to one another.
pub struct RedisGroup {
    servers: Vec<RedisServer>,
    /// The sentinels; empty for a cluster.
    sentinels: Vec<RedisServer>,
    _dir: TempDir,
}

/// The passwords of the servers and of the sentinels under Sentinel.
const SERVER_PASSWORD: &str = "of-servers";
const SENTINEL_PASSWORD: &str = "of-sentinels";

struct RedisServer {
    port: u16,
    /// `None` without a password.
    password: Option<&'static str>,
    /// `None` when the server was killed.
    process: Option<Child>,
}

impl RedisGroup {
    /// Starts a master, two replicas and three sentinels. A failover begins when the master did not
    /// answer for 3.5 seconds, which is longer than `tenantry_redis_up` needs to become 0.
    pub async fn sentinel() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let auth = ["--requirepass", SERVER_PASSWORD, "--masterauth", SERVER_PASSWORD];
        let password = Some(SERVER_PASSWORD);
        let mut servers = vec![RedisServer::start(dir.path(), &auth, password).await];
        let master = servers[0].port.to_string();
        for _ in 0..2 {
            let arguments = [&["--replicaof", "127.0.0.1", &master], &auth[..]].concat();
            servers.push(RedisServer::start(dir.path(), &arguments, password).await);
        }
        // A sentinel asks the master for its replicas only each 10 seconds.
        wait_until(20, || async {
            servers[0].ask("INFO replication").await.matches("state=online").count() == 2
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let path = dir.path().join(format!("sentinel-{}.conf", sentinels.len()));
            let config = format!(
                "requirepass {SENTINEL_PASSWORD}\n\
                 sentinel sentinel-pass {SENTINEL_PASSWORD}\n\
                 sentinel monitor tenantry 127.0.0.1 {master} 2\n\
                 sentinel auth-pass tenantry {SERVER_PASSWORD}\n\
                 sentinel down-after-milliseconds tenantry 3500\n\
                 sentinel failover-timeout tenantry 5000\n"
            );
            fs::write(&path, config).expect("written");
            let path = path.display().to_string();
            let arguments = [&path, "--sentinel"];
            let sentinel = RedisServer::start(dir.path(), &arguments, Some(SENTINEL_PASSWORD));
            sentinels.push(sentinel.await);
        }
        let group = Self { servers, sentinels, _dir: dir };
        wait_until(20, || async {
            let mut is_ready = true;
            for sentinel in &group.sentinels {
                let state = sentinel.ask("SENTINEL MASTER tenantry").await;
                is_ready &= field(&state, "num-other-sentinels") == Some("2")
                    && field(&state, "num-slaves") == Some("2");
            }
            is_ready
        })
        .await;
        group
    }

    /// Starts a cluster of three masters, each with a replica.
    pub async fn cluster() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut servers = Vec::new();
        for number in 0..6 {
            let nodes = format!("nodes-{number}.conf");
            let bus = free_port().to_string();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                &nodes,
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "3500",
            ];
            servers.push(RedisServer::start(dir.path(), &arguments, None).await);
        }
        let group = Self { servers, sentinels: Vec::new(), _dir: dir };
        let addresses = group.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(addresses);
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = create.output().await.expect("redis-cli runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        wait_until(20, || async {
            let mut is_ready = true;
            for server in &group.servers {
                let replication = server.ask("INFO replication").await;
                is_ready &= server.ask("CLUSTER INFO").await.contains("cluster_state:ok")
                    && (replication.contains("state=online")
                        || replication.contains("master_link_status:up"));
            }
            is_ready
        })
        .await;
        group
    }

    /// The value of `REDIS_URL`.
    pub fn url(&self) -> String {
        if self.sentinels.is_empty() {
            return format!("redis-cluster://{}", addresses(&self.servers));
        }
        let sentinels = addresses(&self.sentinels);
        format!(
            "redis-sentinel://:{SERVER_PASSWORD}@{sentinels}?sentinelServiceName=tenantry\
             &sentinelPassword={SENTINEL_PASSWORD}"
        )
    }

    /// Sends a command to each running server, and returns all replies together. In a cluster, the
    /// servers that do not have the key reply with an error.
    pub async fn ask(&self, command: &str) -> String {
        let mut replies = String::new();
        for server in self.servers.iter().filter(|server| server.process.is_some()) {
            replies += &server.ask(command).await;
        }
        replies
    }

    /// The port of the master that has the key.
    pub async fn master_of(&self, key: &str) -> u16 {
        for server in self.servers.iter().filter(|server| server.process.is_some()) {
            let role = server.ask("ROLE").await;
            if role.contains("\r\nmaster\r\n")
                && server.ask(&format!("EXISTS {key}")).await.starts_with(":1")
            {
                return server.port;
            }
        }
        panic!("no master has {key}");
    }

    /// Kills the server with this port.
    pub async fn kill(&mut self, port: u16) {
        let server = self.servers.iter_mut().find(|server| server.port == port);
        let process = server.and_then(|server| server.process.take());
        process.expect("the server runs").kill().await.expect("killed");
    }

    /// Stops the server with this port with SIGSTOP, as if its host were gone: connections stay
    /// open and carry nothing.
    pub async fn pause(&mut self, port: u16) {
        let server = self.servers.iter_mut().find(|server| server.port == port);
        // The process is killed at the end of the test, also while it is stopped.
        let process = server.and_then(|server| server.process.as_ref()).expect("the server runs");
        let pid = process.id().expect("a process").to_string();
        Command::new("kill").args(["-STOP", &pid]).status().await.expect("kill");
    }
}

impl RedisServer {
    async fn start(dir: &Path, arguments: &[&str], password: Option<&'static str>) -> Self {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(arguments).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        if !arguments.contains(&"--sentinel") {
            command.args(["--save", "", "--repl-diskless-sync-delay", "0"]);
        }
        command.current_dir(dir).stdout(Stdio::null()).kill_on_drop(true);
        let process = Some(command.spawn().expect("redis-server"));
        let server = Self { port, password, process };
        wait_until(10, || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        server
    }

    /// Sends a command and returns the whole reply.
    async fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        let auth = self.password.map(|it| format!("AUTH {it}\r\n")).unwrap_or_default();
        stream.write_all(format!("{auth}{command}\r\n").as_bytes()).await.expect("sent");
        // Redis closes the connection after the reply. A sentinel has no command `QUIT`.
        stream.shutdown().await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("a reply");
        match self.password {
            Some(_) => reply.strip_prefix("+OK\r\n").expect("the password is right").to_owned(),
            None => reply,
        }
    }
}

fn addresses(servers: &[RedisServer]) -> String {
    let addresses: Vec<_> =
        servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    addresses.join(",")
}

/// The value after a name in a flat list of names and values.
fn field<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = reply.lines().filter(|line| !line.starts_with(['*', '$']));
    lines.find(|line| *line == name)?;
    lines.next()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
