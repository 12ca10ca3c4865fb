//! Faults of the stores.

use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{cluster::Cluster, stores::PrivateStores};

/// Kills Postgres with all its processes, and starts it again.
///
/// # Errors
/// Returns an error when Postgres does not start again.
pub async fn kill_postgres(cluster: &mut Cluster, down: Duration) -> anyhow::Result<String> {
    let stores = private(cluster)?;
    stores.postgres.kill()?;
    sleep(down).await;
    stores.restart_postgres().await?;
    Ok("Postgres".to_owned())
}

/// Kills Redis, and starts it again.
///
/// # Errors
/// Returns an error when Redis does not start again.
pub async fn kill_redis(cluster: &mut Cluster, down: Duration) -> anyhow::Result<String> {
    let stores = private(cluster)?;
    stores.redis.kill()?;
    sleep(down).await;
    stores.restart_redis().await?;
    Ok("Redis".to_owned())
}

/// Stops all processes of Postgres with SIGSTOP, and continues them.
///
/// # Errors
/// Returns an error when Postgres has ended.
pub async fn pause_postgres(cluster: &mut Cluster, duration: Duration) -> anyhow::Result<String> {
    let stores = private(cluster)?;
    stores.postgres.signal_all(Signal::STOP)?;
    sleep(duration).await;
    stores.postgres.signal_all(Signal::CONT)?;
    Ok("Postgres".to_owned())
}

/// Stops Redis with SIGSTOP, and continues it.
///
/// # Errors
/// Returns an error when Redis has ended.
pub async fn pause_redis(cluster: &mut Cluster, duration: Duration) -> anyhow::Result<String> {
    let stores = private(cluster)?;
    stores.redis.signal_all(Signal::STOP)?;
    sleep(duration).await;
    stores.redis.signal_all(Signal::CONT)?;
    Ok("Redis".to_owned())
}

/// Sets Redis's memory limit so low that Redis refuses all writes, and removes the limit.
///
/// # Errors
/// Returns an error when Redis does not accept the setting.
pub async fn fill_redis(cluster: &mut Cluster, duration: Duration) -> anyhow::Result<String> {
    cluster.stores.redis("CONFIG SET maxmemory-policy noeviction").await?;
    cluster.stores.redis("CONFIG SET maxmemory 1").await?;
    sleep(duration).await;
    cluster.stores.redis("CONFIG SET maxmemory 0").await?;
    Ok("Redis".to_owned())
}

fn private(cluster: &mut Cluster) -> anyhow::Result<&mut PrivateStores> {
    cluster.stores.private.as_mut().context("the stores were not started by this run")
}
