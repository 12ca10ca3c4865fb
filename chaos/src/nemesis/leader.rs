//! Changes of the leader among the Postgres servers under Patroni.

use anyhow::Context;

use crate::{cluster::Cluster, stores::Patroni};

/// Makes the standby the leader, in order. Returns when there is a synchronous standby again.
///
/// # Errors
/// Returns an error when Patroni refuses or the servers do not recover.
pub async fn switch_over(cluster: &Cluster) -> anyhow::Result<String> {
    let patroni = patroni(cluster)?;
    // Without a synchronous standby, Patroni refuses a switchover.
    patroni.wait_until_ready().await?;
    let name = patroni.switch_over().await?;
    patroni.wait_until_ready().await?;
    Ok(format!("leader {name}"))
}

/// Kills the leader. Returns when there are a new leader and a synchronous standby.
///
/// # Errors
/// Returns an error when the servers do not recover.
pub async fn kill(cluster: &Cluster) -> anyhow::Result<String> {
    let patroni = patroni(cluster)?;
    let name = patroni.kill_leader().await?;
    patroni.wait_until_ready().await?;
    Ok(format!("leader {name}"))
}

fn patroni(cluster: &Cluster) -> anyhow::Result<&Patroni> {
    cluster.stores.patroni.as_ref().context("the stores do not run under Patroni")
}
