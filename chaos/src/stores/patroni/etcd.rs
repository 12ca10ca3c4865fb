//! Three members of etcd, in which Patroni keeps its state.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{LIMIT, POLL, ServerUser, reserve, rest, server_command, wait_for_end};
use crate::stores::signal;

/// Number of members. Two of them are a majority.
const MEMBERS: usize = 3;

/// Running members. They end when this program ends.
pub struct Etcd {
    dir: PathBuf,
    user: ServerUser,
    /// For each member, the addresses for clients and for the other members.
    addresses: Vec<(String, String)>,
    members: Mutex<Vec<Child>>,
}

impl Etcd {
    /// Starts the members with their data below `dir`. Returns when they serve.
    ///
    /// # Errors
    /// Returns an error when etcd is not installed or does not serve in time.
    pub async fn start(dir: &Path, user: ServerUser) -> anyhow::Result<Self> {
        let (clients, peers) = (reserve(MEMBERS)?, reserve(MEMBERS)?);
        let mut addresses = Vec::new();
        for (client, peer) in clients.iter().zip(&peers) {
            addresses.push((client.local_addr()?.to_string(), peer.local_addr()?.to_string()));
        }
        drop((clients, peers));
        let dir = dir.to_owned();
        let mut etcd = Self { dir, user, addresses, members: Mutex::default() };
        for number in 0..MEMBERS {
            let member = etcd.start_member(number)?;
            etcd.members.get_mut().push(member);
        }
        let began = Instant::now();
        for address in etcd.client_addresses() {
            while !rest::is_etcd_ready(address).await {
                ensure!(began.elapsed() < LIMIT, "etcd does not serve at {address}");
                sleep(POLL).await;
            }
        }
        Ok(etcd)
    }

    /// The addresses for clients.
    pub fn client_addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().map(|(client, _)| client.as_str())
    }

    /// Kills a random member, and starts it again.
    ///
    /// # Errors
    /// Returns an error when the member does not start.
    pub async fn kill_member(
        &self,
        rng: &mut fastrand::Rng,
        down: Duration,
    ) -> anyhow::Result<String> {
        let number = rng.usize(..MEMBERS);
        let mut members = self.members.lock().await;
        signal(members[number].id(), Signal::KILL)?;
        wait_for_end(&mut members[number]).await?;
        sleep(down).await;
        members[number] = self.start_member(number)?;
        Ok(format!("etcd {number}"))
    }

    /// Stops the members.
    ///
    /// # Errors
    /// Returns an error when a member does not stop in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        let mut members = self.members.into_inner();
        for member in &members {
            signal(member.id(), Signal::TERM)?;
        }
        for member in &mut members {
            wait_for_end(member).await?;
        }
        Ok(())
    }

    fn start_member(&self, number: usize) -> anyhow::Result<Child> {
        let name = |number: usize| format!("etcd{number}");
        let (client, peer) = &self.addresses[number];
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let members: Vec<_> = (0..MEMBERS)
            .map(|member| format!("{}=http://{}", name(member), self.addresses[member].1))
            .collect();
        let log = self.dir.join(format!("{}.log", name(number)));
        let log = fs::File::options().create(true).append(true).open(log)?;
        let mut command = server_command("etcd", &self.dir, self.user);
        command
            .args(["--name", &name(number), "--data-dir"])
            .arg(self.dir.join(name(number)))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &members.join(",")])
            .stderr(log);
        command.spawn().context("etcd")
    }
}
