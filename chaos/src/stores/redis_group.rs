//! Servers of Redis that fail over to one another: three servers with Sentinel, or a cluster of
//! three masters with a replica each. Each server announces the address of a proxy instead of its
//! own address, so that a run can cut the server off.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{StoreAddress, redis_command::redis_command};
use crate::proxy::{Flow, Proxy};

/// Timeout of a failover, and of the return of a server.
const LIMIT: Duration = Duration::from_mins(1);

/// Time between two questions about the state.
const POLL: Duration = Duration::from_millis(50);

/// The name of the master in the configuration of the sentinels.
const SERVICE: &str = "tenantry";

/// Time without an answer after which a server counts as failed, in milliseconds.
const DOWN_AFTER_MS: u32 = 700;

/// How Redis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisOption {
    /// One server.
    Single,
    /// A master, two replicas and three sentinels.
    Sentinel,
    /// Three masters, each with a replica.
    Cluster,
}

/// Running servers. They end when this value is dropped.
pub struct RedisGroup {
    nodes: Vec<Node>,
    /// The sentinels and their ports; empty for a cluster.
    sentinels: Vec<(u16, Child)>,
}

struct Node {
    port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    child: Child,
    /// The announced address.
    proxy: Proxy,
}

impl RedisOption {
    /// Reads the option.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "single" => Self::Single,
            "sentinel" => Self::Sentinel,
            "cluster" => Self::Cluster,
            _ => bail!("write `single`, `sentinel` or `cluster`"),
        })
    }
}

impl RedisGroup {
    /// Starts the servers with their files below `dir`, which is emptied first. Returns `None` for
    /// a single server.
    ///
    /// # Errors
    /// Returns an error when a server does not start.
    pub async fn start(option: RedisOption, dir: &Path) -> anyhow::Result<Option<Self>> {
        fs::remove_dir_all(dir).ok();
        let dir = std::path::absolute(dir)?;
        let group = match option {
            RedisOption::Single => return Ok(None),
            RedisOption::Sentinel => Self::start_sentinel(&dir).await?,
            RedisOption::Cluster => Self::start_cluster(&dir).await?,
        };
        group.wait_until_ready().await?;
        Ok(Some(group))
    }

    async fn start_sentinel(dir: &Path) -> anyhow::Result<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..3 {
            let (port, proxy) = announced_port().await?;
            let mut arguments = arguments(&[
                ("--replica-announce-ip", "127.0.0.1"),
                ("--replica-announce-port", &proxy.addr().port().to_string()),
                ("--repl-diskless-sync-delay", "0"),
            ]);
            if let Some(master) = nodes.first() {
                arguments.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned()]);
                arguments.push(master.proxy.addr().port().to_string());
            }
            let dir = dir.join(format!("redis-{number}"));
            nodes.push(Node::start(dir, port, proxy, arguments)?);
        }
        let master = nodes[0].proxy.addr().port();
        let group = Self { nodes, sentinels: Vec::new() };
        // A sentinel asks the master for its replicas only every 10 seconds, so the replicas must
        // be there before the sentinels start.
        group
            .wait_until("two replicas", async |group| {
                let state = group.nodes[0].ask("INFO replication").await?;
                Ok(state.matches("state=online").count() == 2)
            })
            .await?;
        let mut sentinels = Vec::new();
        for number in 0..3 {
            let dir = dir.join(format!("sentinel-{number}"));
            fs::create_dir_all(&dir)?;
            let config = format!(
                "sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {SERVICE} 2000\n"
            );
            fs::write(dir.join("sentinel.conf"), config)?;
            let port = free_port()?;
            let arguments = ["sentinel.conf".to_owned(), "--sentinel".to_owned()];
            sentinels.push((port, spawn(&dir, port, &arguments)?));
        }
        Ok(Self { sentinels, ..group })
    }

    async fn start_cluster(dir: &Path) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for number in 0..6 {
            let (port, proxy) = announced_port().await?;
            let arguments = arguments(&[
                ("--cluster-enabled", "yes"),
                ("--cluster-port", &free_port()?.to_string()),
                ("--cluster-announce-ip", "127.0.0.1"),
                ("--cluster-announce-port", &proxy.addr().port().to_string()),
                ("--cluster-node-timeout", &DOWN_AFTER_MS.to_string()),
                ("--repl-diskless-sync-delay", "0"),
            ]);
            let dir = dir.join(format!("redis-{number}"));
            nodes.push(Node::start(dir, port, proxy, arguments)?);
        }
        let group = Self { nodes, sentinels: Vec::new() };
        group
            .wait_until("answers", async |group| {
                for node in &group.nodes {
                    node.ask("PING").await?;
                }
                Ok(true)
            })
            .await?;
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(group.nodes.iter().map(|node| node.proxy.addr().to_string()));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = create.output().await.context("redis-cli")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(group)
    }

    /// The value of `REDIS_URL`.
    pub fn url(&self) -> String {
        let node_ports = || self.nodes.iter().map(|node| node.proxy.addr().port());
        let sentinel_ports = || self.sentinels.iter().map(|(port, _)| *port);
        let addresses = |ports: &mut dyn Iterator<Item = u16>| {
            ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
        };
        if self.sentinels.is_empty() {
            format!("redis-cluster://{}", addresses(&mut node_ports()))
        } else {
            let addresses = addresses(&mut sentinel_ports());
            format!("redis-sentinel://{addresses}?sentinelServiceName={SERVICE}")
        }
    }

    /// The number of a random server that is a master.
    ///
    /// # Errors
    /// Returns an error when there is no master.
    pub async fn master(&self, rng: &mut fastrand::Rng) -> anyhow::Result<usize> {
        let mut numbers: Vec<_> = (0..self.nodes.len()).collect();
        rng.shuffle(&mut numbers);
        for number in numbers {
            if self.nodes[number].is_master().await {
                return Ok(number);
            }
        }
        bail!("Redis has no master")
    }

    /// Kills a server, waits for the failover, and starts the server again, without its data.
    ///
    /// # Errors
    /// Returns an error when there is no failover, or when the server does not return.
    pub async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let masters = self.master_count().await;
        self.nodes[number].child.kill().await?;
        self.wait_for_masters(masters, number).await?;
        let node = &mut self.nodes[number];
        node.child = spawn(&node.dir, node.port, &node.arguments)?;
        self.wait_until_ready().await
    }

    /// Stops a server with SIGSTOP, waits for the failover, and continues the server.
    ///
    /// # Errors
    /// Returns an error when there is no failover, or when the server does not return.
    pub async fn pause(&mut self, number: usize) -> anyhow::Result<()> {
        let masters = self.master_count().await;
        self.nodes[number].signal(Signal::STOP)?;
        let result = self.wait_for_masters(masters, number).await;
        self.nodes[number].signal(Signal::CONT)?;
        result?;
        self.wait_until_ready().await
    }

    /// Cuts a server off: the replicas of Tenantry, the other servers and the sentinels don't reach
    /// it. With Sentinel, waits for the failover. In a cluster there is no failover, because its
    /// servers check one another on other ports, which are not cut off. There, the server is cut
    /// off for `duration`.
    ///
    /// # Errors
    /// Returns an error when there is no failover, or when the server does not return.
    pub async fn isolate(&mut self, number: usize, duration: Duration) -> anyhow::Result<()> {
        let masters = self.master_count().await;
        self.nodes[number].proxy.set_flow(Flow::Hold);
        let result = if self.sentinels.is_empty() {
            sleep(duration).await;
            Ok(())
        } else {
            self.wait_for_masters(masters, number).await
        };
        self.nodes[number].proxy.set_flow(Flow::Pass);
        result?;
        self.wait_until_ready().await
    }

    /// Exchanges the roles of a master and of one of its replicas, by a planned failover.
    ///
    /// # Errors
    /// Returns an error when that takes too long.
    pub async fn fail_over(&mut self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let mut masters_before = self.masters().await;
        if let Some((port, _)) = self.sentinels.first() {
            let sentinel = address(*port);
            let command = format!("SENTINEL FAILOVER {SERVICE}");
            self.wait_until("a sentinel that agrees", async |_| {
                redis_command(&sentinel, &command).await?;
                Ok(true)
            })
            .await?;
        } else {
            let mut replicas: Vec<_> = (0..self.nodes.len()).collect();
            replicas.retain(|number| !masters_before.contains(number));
            let replica = rng.choice(replicas).context("no replica")?;
            self.nodes[replica].ask("CLUSTER FAILOVER").await?;
        }
        masters_before.sort_unstable();
        self.wait_until(
            "another master",
            async |group| Ok(group.masters().await != masters_before),
        )
        .await?;
        self.wait_until_ready().await
    }

    async fn masters(&self) -> Vec<usize> {
        self.masters_without(None).await
    }

    /// The masters. A server that does not answer must be left out, because each question to it
    /// would take the whole timeout.
    async fn masters_without(&self, failed: Option<usize>) -> Vec<usize> {
        let mut masters = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if Some(number) != failed && node.is_master().await {
                masters.push(number);
            }
        }
        masters
    }

    async fn master_count(&self) -> usize {
        self.masters().await.len()
    }

    /// Waits until `count` servers other than `failed` are masters.
    async fn wait_for_masters(&self, count: usize, failed: usize) -> anyhow::Result<()> {
        self.wait_until("another master", async |group| {
            Ok(group.masters_without(Some(failed)).await.len() >= count)
        })
        .await
    }

    /// Waits until each master has its replicas, and the sentinels agree on the master.
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.wait_until("complete replication", async |group| group.is_ready().await).await
    }

    async fn is_ready(&self) -> anyhow::Result<bool> {
        let (mut masters, mut replicas) = (Vec::new(), 0);
        for node in &self.nodes {
            let state = node.ask("INFO replication").await?;
            if state.contains("role:master") {
                masters.push(node.proxy.addr().port());
            }
            replicas += usize::from(state.contains("master_link_status:up"));
            if self.sentinels.is_empty()
                && !node.ask("CLUSTER INFO").await?.contains("cluster_state:ok")
            {
                return Ok(false);
            }
        }
        for (port, _) in &self.sentinels {
            let state =
                redis_command(&address(*port), &format!("SENTINEL MASTER {SERVICE}")).await?;
            let words: Vec<_> = state.lines().filter(|line| !line.starts_with('$')).collect();
            let has = |name: &str, value: &str| words.windows(2).any(|pair| *pair == [name, value]);
            let is_known_master = masters.iter().any(|master| has("port", &master.to_string()));
            if !is_known_master || !has("flags", "master") || !has("num-other-sentinels", "2") {
                return Ok(false);
            }
        }
        // The numbers of masters and of replicas.
        let expected = if self.sentinels.is_empty() { (3, 3) } else { (1, 2) };
        Ok((masters.len(), replicas) == expected)
    }

    /// Waits until a condition holds. An error counts as false.
    async fn wait_until(
        &self,
        what: &str,
        condition: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let result = condition(self).await;
            if matches!(result, Ok(true)) {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                result?;
                bail!("Redis does not reach: {what}");
            }
            sleep(POLL).await;
        }
    }
}

impl Node {
    fn start(
        dir: PathBuf,
        port: u16,
        proxy: Proxy,
        arguments: Vec<String>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(&dir)?;
        let child = spawn(&dir, port, &arguments)?;
        Ok(Self { port, dir, arguments, child, proxy })
    }

    async fn ask(&self, command: &str) -> anyhow::Result<String> {
        redis_command(&address(self.port), command).await
    }

    async fn is_master(&self) -> bool {
        self.ask("INFO replication").await.is_ok_and(|state| state.contains("role:master"))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        super::process::signal(self.child.id().context("the server does not run")?, signal)
    }
}

/// Starts a server. It ends when this program ends.
fn spawn(dir: &Path, port: u16, arguments: &[String]) -> anyhow::Result<Child> {
    let log = fs::File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "redis-server"]).args(arguments);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.current_dir(dir).stdin(Stdio::null()).stdout(log).kill_on_drop(true);
    command.spawn().context("setpriv")
}

fn arguments(pairs: &[(&str, &str)]) -> Vec<String> {
    let no_files = [("--save", "")];
    let pairs = pairs.iter().chain(&no_files);
    pairs.flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}

/// A free port, and a proxy to it.
async fn announced_port() -> anyhow::Result<(u16, Proxy)> {
    let port = free_port()?;
    Ok((port, Proxy::start(address(port)).await?))
}

fn address(port: u16) -> StoreAddress {
    StoreAddress::Tcp(format!("127.0.0.1:{port}"))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
