//! Three Postgres servers under Patroni, which keeps its state in etcd. One server is the leader.
//! Its commits wait for a synchronous standby, so a failover loses no acknowledged commit.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::process::{StoreProcess, postgres_bin, signal};
use crate::http;

/// Number of Postgres servers.
const NODES: usize = 3;

/// Timeout of the start of all servers, and of the stop of one.
const LIMIT: Duration = Duration::from_mins(1);

/// Time between two questions for the leader.
const POLL: Duration = Duration::from_millis(100);

/// Running servers. They end when this value is dropped.
pub struct Patroni {
    etcd: Child,
    nodes: Vec<Node>,
    /// Address of the current leader.
    pub leader: watch::Receiver<String>,
    _poll: JoinSet<()>,
}

struct Node {
    name: String,
    /// Address of Patroni's REST API.
    rest: String,
    /// Address of Postgres.
    postgres: String,
    data: PathBuf,
    child: Child,
}

/// The user and the group of the servers, because Postgres does not run as root.
#[derive(Clone, Copy)]
pub struct ServerUser {
    pub user: u32,
    pub group: u32,
}

impl Patroni {
    /// Starts etcd and the servers with their data below `dir`, which is emptied first. Returns
    /// when there are a leader and a synchronous standby.
    ///
    /// # Errors
    /// Returns an error when a program is not installed or does not start.
    pub async fn start(dir: &Path, user: ServerUser) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir)?;
        kill_leftovers(&dir);
        fs::remove_dir_all(&dir).ok();
        make_dir(&dir, user)?;
        let client = free_address()?;
        let etcd = start_etcd(&dir, &client, user)?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(Node::start(&dir, number, &client, user)?);
        }
        let rests = nodes.iter().map(|node| (node.rest.clone(), node.postgres.clone())).collect();
        let (sender, leader) = watch::channel(String::new());
        let mut poll = JoinSet::new();
        poll.spawn(follow_leader(rests, sender));
        let patroni = Self { etcd, nodes, leader, _poll: poll };
        patroni.wait_until_ready().await?;
        Ok(patroni)
    }

    /// Waits until there are a leader and a synchronous standby.
    ///
    /// # Errors
    /// Returns an error when that takes too long.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let mut standbys = 0;
            for node in &self.nodes {
                standbys += usize::from(is_ok(&node.rest, "/synchronous").await);
            }
            if standbys > 0 && self.leader_node().await.is_some() {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "Patroni has no leader or no synchronous standby");
            sleep(POLL).await;
        }
    }

    async fn leader_node(&self) -> Option<&Node> {
        for node in &self.nodes {
            if is_ok(&node.rest, "/primary").await {
                return Some(node);
            }
        }
        None
    }

    /// Asks Patroni to make the standby the leader, and the leader a standby.
    ///
    /// # Errors
    /// Returns an error when Patroni refuses.
    pub async fn switch_over(&self) -> anyhow::Result<String> {
        let node = self.leader_node().await.context("there is no leader")?;
        let body = json!({ "leader": node.name }).to_string();
        let reply = http::request(&node.rest, "POST", "/switchover", &body).await?;
        ensure!(reply.contains(" 200 "), "Patroni refused the switchover: {reply}");
        Ok(node.name.clone())
    }

    /// Kills all processes of the leader's Postgres. Patroni makes the standby the leader. Returns
    /// when Patroni has noticed the end of the old leader.
    ///
    /// # Errors
    /// Returns an error when there is no leader, or Patroni does not notice its end.
    pub async fn kill_leader(&self) -> anyhow::Result<String> {
        let node = self.leader_node().await.context("there is no leader")?;
        let pid = postmaster(&node.data).context("the leader has no process")?;
        StoreProcess::of_running(pid, node.data.clone())?.kill()?;
        let began = Instant::now();
        while is_ok(&node.rest, "/primary").await {
            ensure!(began.elapsed() < LIMIT, "Patroni does not notice the end of the leader");
            sleep(POLL).await;
        }
        Ok(node.name.clone())
    }

    /// Stops all servers.
    ///
    /// # Errors
    /// Returns an error when a server does not stop in time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            signal(node.child.id(), Signal::TERM)?;
        }
        for node in &mut self.nodes {
            wait_for_end(&mut node.child).await?;
        }
        signal(self.etcd.id(), Signal::TERM)?;
        wait_for_end(&mut self.etcd).await
    }
}

impl Node {
    fn start(dir: &Path, number: usize, etcd: &str, user: ServerUser) -> anyhow::Result<Self> {
        let name = format!("node{number}");
        let (rest, postgres) = (free_address()?, free_address()?);
        let data = dir.join(&name);
        let config = configuration(&name, etcd, &rest, &postgres, &data);
        // JSON is valid YAML.
        let file = dir.join(format!("{name}.yml"));
        fs::write(&file, serde_json::to_string_pretty(&config)?)?;
        let mut command = server_command("patroni", dir, user);
        command.arg(&file).stderr(fs::File::create(dir.join(format!("{name}.log")))?);
        let child = command.spawn().context("patroni")?;
        Ok(Self { name, rest, postgres, data, child })
    }
}

fn configuration(
    name: &str,
    etcd: &str,
    rest: &str,
    postgres: &str,
    data: &Path,
) -> serde_json::Value {
    json!({
        "scope": "chaos",
        "name": name,
        "restapi": { "listen": rest, "connect_address": rest },
        "etcd3": { "host": etcd },
        "bootstrap": {
            "dcs": {
                "ttl": 20,
                "loop_wait": 1,
                "retry_timeout": 3,
                // The failover begins at once when the leader's Postgres ends.
                "master_start_timeout": 0,
                "synchronous_mode": true,
                "postgresql": {
                    "use_pg_rewind": true,
                    "parameters": { "max_connections": 200, "wal_log_hints": "on" },
                },
            },
            "initdb": [{ "encoding": "UTF8" }, { "locale": "C.UTF-8" }, { "auth": "trust" }],
        },
        "postgresql": {
            "listen": postgres,
            "connect_address": postgres,
            "data_dir": data,
            "bin_dir": postgres_bin(),
            "pgpass": data.with_extension("pgpass"),
            "pg_hba": [
                "local all all trust",
                "host all all 127.0.0.1/32 trust",
                "host replication all 127.0.0.1/32 trust",
            ],
            "parameters": { "unix_socket_directories": data.parent() },
            "authentication": {
                "superuser": { "username": "postgres" },
                "replication": { "username": "replicator" },
                "rewind": { "username": "postgres" },
            },
        },
    })
}

fn start_etcd(dir: &Path, client: &str, user: ServerUser) -> anyhow::Result<Child> {
    let peer = format!("http://{}", free_address()?);
    let client = format!("http://{client}");
    let mut command = server_command("etcd", dir, user);
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stderr(fs::File::create(dir.join("etcd.log"))?);
    command.spawn().context("etcd")
}

/// A command that runs a program as the servers' user, and ends it when this program dies.
fn server_command(program: &str, dir: &Path, user: ServerUser) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--", program])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(user.user).gid(user.group);
    }
    command
}

fn make_dir(dir: &Path, user: ServerUser) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    chown(dir, Some(user.user), Some(user.group)).with_context(|| dir.display().to_string())
}

/// Kills the servers of an earlier run that was killed.
fn kill_leftovers(dir: &Path) {
    for number in 0..NODES {
        let data = dir.join(format!("node{number}"));
        if let Some(pid) = postmaster(&data)
            && let Ok(process) = StoreProcess::of_running(pid, data.clone())
            && process.arguments.iter().any(|argument| *argument == *data.as_os_str())
        {
            process.kill().ok();
        }
    }
}

/// The process id in the pid file of a server.
fn postmaster(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Tells the address of the leader whenever it changes.
async fn follow_leader(nodes: Vec<(String, String)>, leader: watch::Sender<String>) {
    loop {
        for (rest, postgres) in &nodes {
            if is_ok(rest, "/primary").await {
                leader.send_if_modified(|current| {
                    let is_new = current != postgres;
                    current.clone_from(postgres);
                    is_new
                });
            }
        }
        sleep(POLL).await;
    }
}

async fn is_ok(rest: &str, path: &str) -> bool {
    let reply = http::request(rest, "GET", path, "").await;
    reply.is_ok_and(|reply| reply.split(' ').nth(1) == Some("200"))
}

async fn wait_for_end(child: &mut Child) -> anyhow::Result<()> {
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > LIMIT {
            bail!("a server did not stop");
        }
        sleep(POLL).await;
    }
    Ok(())
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}
