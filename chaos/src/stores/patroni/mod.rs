//! Three Postgres servers under Patroni, which keeps its state in etcd. One server is the leader.
//! With synchronous replication, its commits wait for a standby, so a failover loses no
//! acknowledged commit.

mod etcd;
mod faults;
mod node;
mod rest;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    etcd::Etcd,
    node::{Node, PostgresAddress},
};
use super::process::{StoreProcess, signal};

/// Number of Postgres servers.
const NODES: usize = 3;

/// Timeout of the start of all servers, of a failover, and of the stop of a server.
const LIMIT: Duration = Duration::from_mins(2);

/// Time between two polls of the leader, or of a condition.
const POLL: Duration = Duration::from_millis(100);

/// Whether commits wait for a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Synchronous,
    Asynchronous,
}

/// Running servers. They end when this value is dropped.
pub struct Patroni {
    etcd: Etcd,
    nodes: Vec<Node>,
    /// The processes of Patroni, one for each node.
    processes: Vec<Child>,
    replication: Replication,
    /// Address of the current leader.
    pub leader: watch::Receiver<String>,
    _poll: JoinSet<()>,
}

/// The user and the group of the servers, because Postgres does not run as root.
#[derive(Clone, Copy)]
pub struct ServerUser {
    pub user: u32,
    pub group: u32,
}

impl Patroni {
    /// Starts etcd and the servers with their data below `dir`, which is emptied first. Returns
    /// when there are a leader and a standby.
    ///
    /// # Errors
    /// Returns an error when a program is not installed or does not start.
    pub async fn start(
        dir: &Path,
        replication: Replication,
        user: ServerUser,
    ) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir)?;
        kill_leftovers(&dir);
        fs::remove_dir_all(&dir).ok();
        make_dir(&dir, user)?;
        let etcd = Etcd::start(&dir, user).await?;
        // These ports stay in use until all proxies have their ports.
        let rest_listeners = reserve(NODES)?;
        let mut addresses = Vec::new();
        for number in 0..NODES {
            addresses.push(PostgresAddress::of_node(number)?);
        }
        let mut nodes = Vec::new();
        for (number, listener) in rest_listeners.iter().enumerate() {
            let rest_address = listener.local_addr()?.to_string();
            let members = etcd.client_addresses();
            let node =
                Node::prepare(&dir, number, &addresses, rest_address, members, replication).await?;
            nodes.push(node);
        }
        drop(rest_listeners);
        let mut processes = Vec::new();
        for node in &nodes {
            processes.push(node.start(&dir, user)?);
        }
        let node_addresses =
            nodes.iter().map(|node| (node.rest.clone(), node.postgres.text())).collect();
        let (sender, leader) = watch::channel(String::new());
        let mut poll = JoinSet::new();
        poll.spawn(follow_leader(node_addresses, sender));
        let patroni = Self { etcd, nodes, processes, replication, leader, _poll: poll };
        patroni.wait_until_ready().await?;
        Ok(patroni)
    }

    /// Waits until there are a leader and a standby that may become the leader.
    ///
    /// # Errors
    /// Returns an error when that takes too long.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.wait_until("a leader with a standby", async || {
            let leader = self.leader_except(None).await.context("there is no leader")?;
            let standby = self.working_standby(leader).await?;
            anyhow::Ok(standby.map(drop))
        })
        .await
    }

    /// The number of a node that is the leader, other than `except`.
    async fn leader_except(&self, except: Option<usize>) -> Option<usize> {
        for (number, node) in self.nodes.iter().enumerate() {
            if Some(number) != except && rest::is_role(&node.rest, "/primary").await {
                return Some(number);
            }
        }
        None
    }

    /// The number of a standby that replicates from the leader. With synchronous replication,
    /// commits wait for it, and it may become the leader.
    async fn working_standby(&self, leader: usize) -> anyhow::Result<Option<usize>> {
        let is_synchronous = self.replication == Replication::Synchronous;
        for standby in rest::standbys(&self.nodes[leader].rest).await? {
            let is_working =
                standby.state == "streaming" && (!is_synchronous || standby.sync_state == "sync");
            let position = self.nodes.iter().position(|node| node.name == standby.application_name);
            let Some(number) = position.filter(|_| is_working) else { continue };
            let path = if is_synchronous { "/synchronous" } else { "/replica" };
            if rest::is_role(&self.nodes[number].rest, path).await {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Waits until the condition has a value. An error counts as no value.
    async fn wait_until<T>(
        &self,
        what: &str,
        condition: impl AsyncFn() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            let result = condition().await;
            if let Ok(Some(value)) = result {
                return Ok(value);
            }
            if began.elapsed() > LIMIT {
                result?;
                bail!("Patroni does not reach: {what}");
            }
            sleep(POLL).await;
        }
    }

    /// Stops all servers.
    ///
    /// # Errors
    /// Returns an error when a server does not stop in time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for process in &self.processes {
            signal(process.id(), Signal::TERM)?;
        }
        for process in &mut self.processes {
            wait_for_end(process).await?;
        }
        self.etcd.stop().await
    }
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
        let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok())
            && let Ok(process) = StoreProcess::of_running(pid, data.clone())
            && process.arguments.iter().any(|argument| *argument == *data.as_os_str())
        {
            process.kill().ok();
        }
    }
}

/// Finds the leader, and sends the address of its Postgres whenever it changes. `nodes` has the
/// addresses of Patroni's REST API and of Postgres.
async fn follow_leader(nodes: Vec<(String, String)>, leader: watch::Sender<String>) {
    loop {
        for (rest_address, postgres) in &nodes {
            if rest::is_role(rest_address, "/primary").await {
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

/// Free ports of the loopback interface. They stay in use until the result is dropped.
fn reserve(count: usize) -> anyhow::Result<Vec<TcpListener>> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port");
    (0..count).map(bind).collect()
}
