//! Changes of the master among several servers of Redis.

use std::time::Duration;

use anyhow::Context;
use fastrand::Rng;

use super::Nemesis;
use crate::cluster::Cluster;

/// Makes a master fail, or replaces it by a planned failover. Returns when all servers work. Then
/// another server is the master, except after the isolation of a master of a cluster.
///
/// # Errors
/// Returns an error when there is no failover, or when a server does not return.
pub async fn replace(
    cluster: &Cluster,
    nemesis: Nemesis,
    rng: &mut Rng,
    duration: Duration,
) -> anyhow::Result<String> {
    let group = cluster.stores.redis_group.as_ref().context("there is only one Redis")?;
    let mut group = group.lock().await;
    if nemesis == Nemesis::FailOverRedis {
        group.fail_over(rng).await?;
        return Ok("Redis".to_owned());
    }
    let master = group.master(rng).await?;
    match nemesis {
        Nemesis::KillRedisMaster => group.kill(master).await?,
        Nemesis::PauseRedisMaster => group.pause(master).await?,
        _ => group.isolate(master, duration).await?,
    }
    Ok(format!("Redis {master}"))
}
