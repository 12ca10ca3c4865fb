//! Faults of the stores that the run started.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use super::Nemesis;
use crate::{cluster::Cluster, stores::Stores};

/// Injects a fault of Postgres or Redis, and removes it.
///
/// # Errors
/// Returns an error when the store does not start again, or does not accept a setting.
pub async fn disturb(
    cluster: &Cluster,
    nemesis: Nemesis,
    duration: Duration,
) -> anyhow::Result<String> {
    let stores = &cluster.stores;
    if nemesis == Nemesis::FullRedis {
        fill_redis(stores, duration).await?;
        return Ok("Redis".to_owned());
    }
    let private = stores.private.as_ref().context("the stores were not started by this run")?;
    let name = match nemesis {
        Nemesis::KillPostgres => {
            private.kill_postgres(duration).await?;
            "Postgres"
        }
        Nemesis::PausePostgres => {
            private.pause_postgres(duration).await?;
            "Postgres"
        }
        Nemesis::KillRedis => {
            private.kill_redis(duration).await?;
            "Redis"
        }
        _ => {
            private.pause_redis(duration).await?;
            "Redis"
        }
    };
    Ok(name.to_owned())
}

/// Sets Redis's memory limit so low that Redis refuses all writes, and removes the limit.
async fn fill_redis(stores: &Stores, duration: Duration) -> anyhow::Result<()> {
    stores.redis("CONFIG SET maxmemory-policy noeviction").await?;
    stores.redis("CONFIG SET maxmemory 1").await?;
    sleep(duration).await;
    stores.redis("CONFIG SET maxmemory 0").await?;
    Ok(())
}
