//! A Postgres server under Patroni, and its connections to etcd and to the other servers. A run can
//! hold the data of these connections.
//!
//! Each node has its own address of the loopback interface, at which its Postgres listens. All
//! Postgres clients of a node connect to this address, because `PGHOSTADDR` replaces the address
//! that Patroni gives them. At this address, one proxy for each other node listens, at the port of
//! the other node's Postgres. So each direction between two nodes has its own proxy. The replicas
//! of Tenantry connect to Postgres without these proxies.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Child,
};

use anyhow::Context;
use serde_json::json;

use super::{Replication, ServerUser, server_command};
use crate::{
    proxy::{Flow, Proxy},
    stores::{StoreAddress, process::postgres_bin},
};

/// A server and its connections.
pub struct Node {
    pub name: String,
    /// Address of Patroni's REST API.
    pub rest: String,
    /// Address of Postgres.
    pub postgres: PostgresAddress,
    pub data: PathBuf,
    to_etcd: Vec<Proxy>,
    /// The proxies to the Postgres of other nodes, with the numbers of these nodes.
    to_peers: Vec<(usize, Proxy)>,
    /// The address of Patroni's REST API that the other nodes know.
    rest_proxy: Proxy,
}

/// Where the Postgres of a node listens.
#[derive(Clone, Copy)]
pub struct PostgresAddress {
    host: Ipv4Addr,
    port: u16,
}

impl PostgresAddress {
    /// A free port at the address of a node.
    ///
    /// # Errors
    /// Returns an error when no port is free.
    pub fn of_node(number: usize) -> anyhow::Result<Self> {
        let host = Ipv4Addr::new(127, 0, 0, 10 + u8::try_from(number)?);
        Ok(Self { host, port: TcpListener::bind((host, 0))?.local_addr()?.port() })
    }

    pub fn text(self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Node {
    /// Writes the configuration of a server, and starts the proxies of its connections. `postgres`
    /// has the addresses of all nodes.
    ///
    /// # Errors
    /// Returns an error when a file can't be written, or a port is in use.
    pub async fn prepare(
        dir: &Path,
        number: usize,
        postgres: &[PostgresAddress],
        rest: String,
        etcd: impl Iterator<Item = &str>,
        replication: Replication,
    ) -> anyhow::Result<Self> {
        let name = format!("node{number}");
        let own_address = postgres[number];
        let rest_proxy = Proxy::start(StoreAddress::Tcp(rest.clone())).await?;
        let mut to_etcd = Vec::new();
        for address in etcd {
            to_etcd.push(Proxy::start(StoreAddress::Tcp(address.to_owned())).await?);
        }
        let mut to_peers = Vec::new();
        for (peer, address) in postgres.iter().enumerate().filter(|(peer, _)| *peer != number) {
            let listen = (own_address.host, address.port).into();
            let proxy = Proxy::start_at(listen, StoreAddress::Tcp(address.text())).await?;
            to_peers.push((peer, proxy));
        }
        let data = dir.join(&name);
        let config = json!({
            "scope": "chaos",
            "name": name,
            "restapi": { "listen": rest, "connect_address": rest_proxy.addr() },
            // Without `use_proxies`, Patroni connects to the addresses that etcd announces.
            "etcd3": {
                "hosts": to_etcd.iter().map(Proxy::addr).collect::<Vec<_>>(),
                "use_proxies": true,
            },
            "bootstrap": bootstrap(replication),
            "postgresql": postgresql(own_address, &data),
        });
        // JSON is valid YAML.
        fs::write(data.with_extension("yml"), serde_json::to_string_pretty(&config)?)?;
        Ok(Self { name, rest, postgres: own_address, data, to_etcd, to_peers, rest_proxy })
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Returns an error when Patroni is not installed.
    pub fn start(&self, dir: &Path, user: ServerUser) -> anyhow::Result<Child> {
        let mut command = server_command("patroni", dir, user);
        command.arg(self.data.with_extension("yml"));
        command.stderr(fs::File::create(self.data.with_extension("log"))?);
        command.env("PGHOSTADDR", self.postgres.host.to_string());
        command.spawn().context("patroni")
    }

    /// Holds the node's connections to etcd, or lets them pass again.
    pub fn set_etcd(&self, flow: Flow) {
        for proxy in &self.to_etcd {
            proxy.set_flow(flow);
        }
    }

    /// Holds the connections of other nodes to this node's REST API, or lets them pass again.
    pub fn set_rest(&self, flow: Flow) {
        self.rest_proxy.set_flow(flow);
    }

    /// Holds this node's connections to the Postgres of other nodes for which the condition holds,
    /// or lets them pass again.
    pub fn set_peers(&self, flow: Flow, is_affected: impl Fn(usize) -> bool) {
        for (_, proxy) in self.to_peers.iter().filter(|(peer, _)| is_affected(*peer)) {
            proxy.set_flow(flow);
        }
    }

    /// The process id and the start of the server's Postgres, which together identify its process.
    pub fn postgres_process(&self) -> Option<(u32, String)> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        // The second line is the directory of the data; the third line is the start time.
        Some((pid, lines.nth(1)?.trim().to_owned()))
    }
}

fn bootstrap(replication: Replication) -> serde_json::Value {
    json!({
        "dcs": {
            "ttl": 20,
            "loop_wait": 1,
            "retry_timeout": 3,
            // The failover begins immediately when the leader's Postgres ends.
            "master_start_timeout": 0,
            "synchronous_mode": replication == Replication::Synchronous,
            "postgresql": {
                "use_pg_rewind": true,
                "parameters": {
                    "max_connections": 200,
                    "wal_log_hints": "on",
                    // A standby that is cut off does not block commits for longer than this.
                    "wal_sender_timeout": "5s",
                    "wal_receiver_timeout": "5s",
                },
            },
        },
        "initdb": [{ "encoding": "UTF8" }, { "locale": "C.UTF-8" }, { "auth": "trust" }],
    })
}

fn postgresql(own_address: PostgresAddress, data: &Path) -> serde_json::Value {
    json!({
        "listen": own_address.text(),
        "connect_address": own_address.text(),
        "data_dir": data,
        "bin_dir": postgres_bin(),
        "pgpass": data.with_extension("pgpass"),
        "pg_hba": [
            "local all all trust",
            "host all all 127.0.0.0/8 trust",
            "host replication all 127.0.0.0/8 trust",
        ],
        "parameters": { "unix_socket_directories": data.parent() },
        "authentication": {
            "superuser": { "username": "postgres" },
            "replication": { "username": "replicator" },
            "rewind": { "username": "postgres" },
        },
    })
}
