//! Faults of the servers under Patroni: switchovers, failovers and partitions. Each function
//! returns a description when the fault has ended. The servers may still have to recover.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Patroni, Replication, StoreProcess, rest};
use crate::proxy::Flow;

impl Patroni {
    /// Asks Patroni to make the standby the leader, and the leader a standby.
    ///
    /// # Errors
    /// Returns an error when Patroni refuses.
    pub async fn switch_over(&self) -> anyhow::Result<String> {
        let node = &self.nodes[self.leader().await?];
        let body = json!({ "leader": node.name }).to_string();
        rest::switch_over(&node.rest, &body).await?;
        Ok(format!("leader {}", node.name))
    }

    /// Kills all processes of the leader's Postgres. Returns when there is a leader with another
    /// process: the standby, or the same node again.
    ///
    /// # Errors
    /// Returns an error when there is no leader, before or afterwards.
    pub async fn kill_leader(&self) -> anyhow::Result<String> {
        let old = self.leader().await?;
        let node = &self.nodes[old];
        let killed = node.postgres_process().context("the leader has no process")?;
        StoreProcess::of_running(killed.0, node.data.clone())?.kill()?;
        let new = self
            .wait_until("another leader", async || {
                let Some(leader) = self.leader_except(None).await else { return Ok(None) };
                // Until Patroni notices the end, the old node still counts as the leader.
                let process = self.nodes[leader].postgres_process();
                Ok(process.filter(|process| *process != killed).map(|_| leader))
            })
            .await?;
        Ok(format!("leader {}, then {}", node.name, self.nodes[new].name))
    }

    /// Cuts the leader off from etcd and from the other nodes, but not from clients, until another
    /// node is the leader. By then, the old leader must have given up its role.
    ///
    /// # Errors
    /// Returns an error when no other node becomes the leader, or when there are two leaders.
    pub async fn isolate_leader(&self) -> anyhow::Result<String> {
        let old = self.leader().await?;
        let old_rest_address = &self.nodes[old].rest;
        let began = Instant::now();
        self.set_isolated(old, Flow::Hold);
        let result = self
            .wait_until("another leader", async || {
                let new = self.leader_except(Some(old)).await;
                let old_is_leader = rest::is_role(old_rest_address, "/primary").await;
                Ok(new.map(|new| (new, old_is_leader)))
            })
            .await;
        let lasted = began.elapsed();
        self.set_isolated(old, Flow::Pass);
        let (new, old_is_leader) = result?;
        let (old, new) = (&self.nodes[old].name, &self.nodes[new].name);
        ensure!(!old_is_leader, "both {old} and {new} are leaders");
        Ok(format!("leader {old}, then {new} after {lasted:.1?}"))
    }

    /// Cuts a standby off from etcd and from the other nodes. With synchronous replication, this is
    /// the standby that commits wait for, and the fault lasts until the leader waits for another
    /// one, or for none.
    ///
    /// # Errors
    /// Returns an error when there is no standby, or when the leader keeps waiting for it.
    pub async fn isolate_standby(&self, duration: Duration) -> anyhow::Result<String> {
        let leader = self.leader().await?;
        let standby = self.working_standby(leader).await?.context("there is no standby")?;
        self.set_isolated(standby, Flow::Hold);
        let result = if self.replication == Replication::Synchronous {
            let name = &self.nodes[standby].name;
            self.wait_until("a leader that has dropped its standby", async || {
                let leader = self.leader_except(Some(standby)).await.context("no leader")?;
                let is_kept = rest::has_synchronous(&self.nodes[leader].rest, name).await?;
                Ok((!is_kept).then_some(()))
            })
            .await
        } else {
            sleep(duration).await;
            Ok(())
        };
        self.set_isolated(standby, Flow::Pass);
        result?;
        Ok(format!("standby {}", self.nodes[standby].name))
    }

    /// Cuts all nodes off from etcd, until the leader has given up its role.
    ///
    /// # Errors
    /// Returns an error when the leader does not give up its role.
    pub async fn cut_etcd(&self) -> anyhow::Result<String> {
        let set = |flow| self.nodes.iter().for_each(|node| node.set_etcd(flow));
        set(Flow::Hold);
        let result = self
            .wait_until("no leader", async || {
                Ok(self.leader_except(None).await.is_none().then_some(()))
            })
            .await;
        set(Flow::Pass);
        result?;
        Ok("etcd".to_owned())
    }

    /// Kills a member of etcd, and starts it again. The other two are a majority.
    ///
    /// # Errors
    /// Returns an error when the member does not start.
    pub async fn kill_etcd(
        &self,
        rng: &mut fastrand::Rng,
        down: Duration,
    ) -> anyhow::Result<String> {
        self.etcd.kill_member(rng, down).await
    }

    async fn leader(&self) -> anyhow::Result<usize> {
        self.leader_except(None).await.context("there is no leader")
    }

    /// Holds the connections between a node and etcd, and between it and the other nodes, or lets
    /// them pass again.
    fn set_isolated(&self, isolated: usize, flow: Flow) {
        for (number, node) in self.nodes.iter().enumerate() {
            node.set_peers(flow, |peer| number == isolated || peer == isolated);
        }
        self.nodes[isolated].set_etcd(flow);
        self.nodes[isolated].set_rest(flow);
    }
}
