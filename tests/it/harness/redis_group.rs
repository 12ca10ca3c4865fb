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
    /// Whether the server under test connects with TLS.
    has_tls: bool,
    dir: TempDir,
}

/// The PEM texts with which all servers and sentinels serve TLS. Each server also has a port
/// without TLS, which only the tests use.
pub struct RedisTls {
    /// The authority that signed the certificate.
    pub authority: String,
    pub cert: String,
    pub key: String,
}

/// The name by which servers with TLS announce themselves.
const TLS_HOST: &str = "localhost";

/// The passwords of a group with Sentinel. A cluster has no passwords.
const SERVER_PASSWORD: &str = "of-servers";
const SENTINEL_PASSWORD: &str = "of-sentinels";

/// Names of the files of TLS, in the group's directory.
const CA: &str = "ca.pem";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

struct RedisServer {
    port: u16,
    /// Port with TLS, if the group has TLS.
    tls_port: Option<u16>,
    /// `None` without a password.
    password: Option<&'static str>,
    /// `None` when the server was killed.
    process: Option<Child>,
}

impl RedisGroup {
    /// Starts a master, two replicas and three sentinels. A failover begins when the master has not
    /// answered for 3.5 seconds. The metric `tenantry_redis_up` needs less time to become 0, so a
    /// test can see it become 0 before the failover.
    pub async fn sentinel() -> Self {
        Self::start_sentinel(None).await
    }

    /// Like [`RedisGroup::sentinel`], with TLS. The servers and the sentinels announce a host name
    /// instead of an address.
    pub async fn sentinel_with_tls(tls: &RedisTls) -> Self {
        Self::start_sentinel(Some(tls)).await
    }

    /// Starts a cluster of three masters, each with a replica.
    pub async fn cluster() -> Self {
        Self::start_cluster(None).await
    }

    /// Like [`RedisGroup::cluster`], with TLS. The servers announce a host name instead of an
    /// address.
    pub async fn cluster_with_tls(tls: &RedisTls) -> Self {
        Self::start_cluster(Some(tls)).await
    }

    fn empty(tls: Option<&RedisTls>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        if let Some(tls) = tls {
            for (name, text) in [(CA, &tls.authority), (CERT, &tls.cert), (KEY, &tls.key)] {
                fs::write(dir.path().join(name), text).expect("written");
            }
        }
        Self { servers: Vec::new(), sentinels: Vec::new(), has_tls: tls.is_some(), dir }
    }

    async fn start_sentinel(tls: Option<&RedisTls>) -> Self {
        let mut group = Self::empty(tls);
        let host = if group.has_tls { TLS_HOST } else { "127.0.0.1" };
        let auth = ["--requirepass", SERVER_PASSWORD, "--masterauth", SERVER_PASSWORD];
        let common = [&["--replica-announce-ip", host], &auth[..]].concat();
        let password = Some(SERVER_PASSWORD);
        group.start_server(&common, password).await;
        let master = group.servers[0].serving_port().to_string();
        for _ in 0..2 {
            let arguments = [&["--replicaof", host, &master], &common[..]].concat();
            group.start_server(&arguments, password).await;
        }
        // A sentinel asks the master for its replicas only every 10 seconds, so both replicas must
        // be connected before the sentinels start.
        wait_until(20, || async {
            group.servers[0].ask("INFO replication").await.matches("state=online").count() == 2
        })
        .await;
        for number in 0..3 {
            let path = group.dir.path().join(format!("sentinel-{number}.conf"));
            let config = format!(
                "requirepass {SENTINEL_PASSWORD}\n\
                 sentinel sentinel-pass {SENTINEL_PASSWORD}\n\
                 sentinel resolve-hostnames yes\n\
                 sentinel announce-hostnames yes\n\
                 sentinel announce-ip {host}\n\
                 sentinel monitor tenantry {host} {master} 2\n\
                 sentinel auth-pass tenantry {SERVER_PASSWORD}\n\
                 sentinel down-after-milliseconds tenantry 3500\n\
                 sentinel failover-timeout tenantry 5000\n"
            );
            fs::write(&path, config).expect("written");
            let path = path.display().to_string();
            let arguments = [&path, "--sentinel"];
            let sentinel = group.run(&arguments, Some(SENTINEL_PASSWORD)).await;
            group.sentinels.push(sentinel);
        }
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

    async fn start_cluster(tls: Option<&RedisTls>) -> Self {
        let mut group = Self::empty(tls);
        for number in 0..6 {
            let nodes = format!("nodes-{number}.conf");
            let bus = free_port().to_string();
            let mut arguments = vec![
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                &nodes,
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "3500",
            ];
            if group.has_tls {
                arguments.extend(["--tls-cluster", "yes", "--cluster-announce-hostname", TLS_HOST]);
                arguments.extend(["--cluster-preferred-endpoint-type", "hostname"]);
            }
            group.start_server(&arguments, None).await;
        }
        let addresses =
            group.servers.iter().map(|server| format!("127.0.0.1:{}", server.serving_port()));
        let mut create = Command::new("redis-cli");
        create.current_dir(group.dir.path()).args(["--cluster", "create"]).args(addresses);
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        if group.has_tls {
            create.args(["--tls", "--cacert", CA]);
        }
        let output = create.output().await.expect("redis-cli runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        wait_until(20, || async {
            let mut is_ready = true;
            for server in &group.servers {
                // Each master must have an online replica, and each replica must be connected to
                // its master.
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

    async fn start_server(&mut self, arguments: &[&str], password: Option<&'static str>) {
        let arguments = [arguments, &["--save", "", "--repl-diskless-sync-delay", "0"]].concat();
        let server = self.run(&arguments, password).await;
        self.servers.push(server);
    }

    async fn run(&self, arguments: &[&str], password: Option<&'static str>) -> RedisServer {
        RedisServer::start(self.dir.path(), arguments, password, self.has_tls).await
    }

    /// Path of the file with the authority of a group with TLS.
    pub fn authority_path(&self) -> String {
        self.dir.path().join(CA).display().to_string()
    }

    /// The value of `REDIS_URL`.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "rediss" } else { "redis" };
        if self.sentinels.is_empty() {
            return format!("{scheme}-cluster://{}", addresses(&self.servers));
        }
        let sentinels = addresses(&self.sentinels);
        format!(
            "{scheme}-sentinel://:{SERVER_PASSWORD}@{sentinels}?sentinelServiceName=tenantry\
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
        // The SIGKILL at the end of the test also ends a stopped process.
        let process = server.and_then(|server| server.process.as_ref()).expect("the server runs");
        let pid = process.id().expect("a process").to_string();
        Command::new("kill").args(["-STOP", &pid]).status().await.expect("kill runs");
    }
}

impl RedisServer {
    async fn start(
        dir: &Path,
        arguments: &[&str],
        password: Option<&'static str>,
        has_tls: bool,
    ) -> Self {
        let port = free_port();
        let tls_port = has_tls.then(free_port);
        let mut command = Command::new("redis-server");
        command.args(arguments).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        if let Some(tls_port) = tls_port {
            command.args(["--tls-port", &tls_port.to_string(), "--tls-ca-cert-file", CA]);
            command.args(["--tls-cert-file", CERT, "--tls-key-file", KEY]);
            command.args(["--tls-auth-clients", "no", "--tls-replication", "yes"]);
        }
        command.current_dir(dir).stdout(Stdio::null()).kill_on_drop(true);
        let process = Some(command.spawn().expect("redis-server"));
        let server = Self { port, tls_port, password, process };
        wait_until(10, || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        server
    }

    /// The port to which the server under test connects.
    fn serving_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// Sends a command and returns the whole reply.
    async fn ask(&self, command: &str) -> String {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).await.expect("the server listens");
        let auth = self.password.map(|password| format!("AUTH {password}\r\n")).unwrap_or_default();
        stream.write_all(format!("{auth}{command}\r\n").as_bytes()).await.expect("sent");
        // After this end of the requests, Redis replies and closes the connection. The command
        // `QUIT` would do the same, but a sentinel does not have it.
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
    let address = |server: &RedisServer| match server.tls_port {
        Some(port) => format!("{TLS_HOST}:{port}"),
        None => format!("127.0.0.1:{}", server.port),
    };
    let addresses: Vec<_> = servers.iter().map(address).collect();
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
