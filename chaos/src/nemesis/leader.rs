//! Faults of the Postgres servers under Patroni.

use std::time::Duration;

use anyhow::Context;
use fastrand::Rng;

use super::Nemesis;
use crate::cluster::Cluster;

/// Injects a fault. Returns when there are a leader and a standby that may become the leader.
///
/// # Errors
/// Returns an error when Patroni refuses, or the servers do not recover.
pub async fn disturb(
    cluster: &Cluster,
    nemesis: Nemesis,
    rng: &mut Rng,
    duration: Duration,
) -> anyhow::Result<String> {
    let patroni = cluster.stores.patroni.as_ref();
    let patroni = patroni.context("the stores do not run under Patroni")?;
    // Without a standby, Patroni refuses a switchover, and nothing can replace the leader.
    patroni.wait_until_ready().await?;
    let target = match nemesis {
        Nemesis::SwitchOver => patroni.switch_over().await?,
        Nemesis::KillLeader => patroni.kill_leader().await?,
        Nemesis::IsolateLeader => patroni.isolate_leader().await?,
        Nemesis::IsolateStandby => patroni.isolate_standby(duration).await?,
        Nemesis::CutEtcd => patroni.cut_etcd().await?,
        _ => patroni.kill_etcd(rng, duration).await?,
    };
    patroni.wait_until_ready().await?;
    Ok(target)
}
