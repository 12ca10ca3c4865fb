//! Faults of replicas.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::Target;
use crate::{cluster::Cluster, replica::Release};

/// Kills a replica, and starts it again after `down`.
///
/// # Errors
/// Returns an error when the replica does not start again.
pub async fn kill(cluster: &Cluster, number: usize, down: Duration) -> anyhow::Result<String> {
    let mut replica = cluster.replicas[number].lock().await;
    replica.kill().await?;
    sleep(down).await;
    replica.start_process(&cluster.program, None)?;
    replica.wait_until_listening(&cluster.program).await?;
    Ok(Target::One(number).to_string())
}

/// Stops a replica with SIGSTOP, and continues it.
///
/// # Errors
/// Returns an error when the replica has ended.
pub async fn pause(cluster: &Cluster, number: usize, duration: Duration) -> anyhow::Result<String> {
    let replica = cluster.replicas[number].lock().await;
    replica.signal(Signal::STOP)?;
    sleep(duration).await;
    replica.signal(Signal::CONT)?;
    Ok(Target::One(number).to_string())
}

/// Restarts a replica with a wrong clock, and later with the right clock. The error of the clock is
/// less than replicas tolerate when they check tokens, so all replicas accept all tokens.
///
/// # Errors
/// Returns an error when the replica does not start again.
pub async fn wrong_clock(
    cluster: &Cluster,
    number: usize,
    offset: &str,
    duration: Duration,
) -> anyhow::Result<String> {
    let mut replica = cluster.replicas[number].lock().await;
    replica.stop().await?;
    replica.start_process(&cluster.program, Some(offset))?;
    replica.wait_until_listening(&cluster.program).await?;
    sleep(duration).await;
    replica.stop().await?;
    replica.start_process(&cluster.program, None)?;
    replica.wait_until_listening(&cluster.program).await?;
    Ok(format!("{}, {offset}", Target::One(number)))
}

/// Leaves the log of a replica unread for `duration`, so that the pipe of the log becomes full.
pub async fn block_log(cluster: &Cluster, number: usize, duration: Duration) -> String {
    let replica = cluster.replicas[number].lock().await;
    replica.set_log_reading(false);
    sleep(duration).await;
    replica.set_log_reading(true);
    Target::One(number).to_string()
}

/// Stops a replica gracefully, and starts it with the other release. Before an upgrade, the schema
/// is migrated while replicas of the previous release serve.
///
/// # Errors
/// Returns an error when the schema can't be upgraded, or the replica does not start.
pub async fn change_release(cluster: &Cluster, number: usize) -> anyhow::Result<String> {
    let mut replica = cluster.replicas[number].lock().await;
    let release = replica.release.other();
    if release == Release::Current {
        cluster.migrate(release).await?;
    }
    replica.stop().await?;
    replica.release = release;
    replica.start_process(&cluster.program, None)?;
    replica.wait_until_listening(&cluster.program).await?;
    let name = match release {
        Release::Previous => "downgraded",
        Release::Current => "upgraded",
    };
    Ok(format!("{} {name}", Target::One(number)))
}
