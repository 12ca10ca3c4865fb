//! Nemeses: each injects one kind of fault, keeps it for a while, and removes it.

mod kind;
mod leader;
mod network;
mod redis_master;
mod replica;
mod store;

use std::{fmt, time::Duration};

use anyhow::Context;
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Cluster,
    history::{Fault, Time},
    workload::{Client, World},
};

pub use self::kind::{NEMESES, Nemesis};

/// Time between two faults, after the system has recovered.
const CALM: Duration = Duration::from_millis(1500);

/// Shortest and longest duration of a fault, in milliseconds.
const DURATION_MS: std::ops::Range<u64> = 800..3500;

/// Shortest and longest time from the start of a fault to the start of the second fault that
/// overlaps with it, in milliseconds.
const LATER_MS: std::ops::Range<u64> = 0..800;

/// Timeout of the recovery after a fault.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// Replicas that a fault affects.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    One(usize),
    All,
}

impl Target {
    fn random(rng: &mut Rng, replicas: usize) -> Self {
        if rng.u8(..4) == 0 { Self::All } else { Self::One(rng.usize(..replicas)) }
    }

    /// Whether the fault affects this replica.
    fn includes(self, replica: usize) -> bool {
        match self {
            Self::All => true,
            Self::One(number) => number == replica,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(number) => write!(f, "replica {number}"),
            Self::All => f.write_str("all replicas"),
        }
    }
}

/// Injects random faults of these kinds until `end`, one at a time, or two of different parts if
/// `overlap` is true. Returns all faults.
///
/// # Errors
/// Returns an error when a fault can't be injected or removed.
pub async fn inject_faults(
    cluster: &Cluster,
    client: &mut Client,
    kinds: &[Nemesis],
    overlap: bool,
    end: Time,
) -> anyhow::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let mut order = Vec::new();
    sleep(CALM).await;
    while client.world.history.now() < end {
        // Each kind occurs once before any kind occurs again.
        if order.is_empty() {
            order = kinds.to_vec();
            client.rng.shuffle(&mut order);
        }
        let Some(nemesis) = order.pop() else { break };
        let other = if overlap { take_other(nemesis, &mut order) } else { None };
        let injected = Box::pin(inject(cluster, client, nemesis, other)).await?;
        for fault in injected {
            crate::say(&format!(
                "{:7.3}s {} ({}), {:.1}s, {}",
                fault.start.as_secs_f64(),
                fault.nemesis,
                fault.target,
                fault.end.saturating_sub(fault.start).as_secs_f64(),
                fault
                    .recovery
                    .map_or("NOT RECOVERED".to_owned(), |time| format!("recovered in {time:.1?}")),
            ));
            faults.push(fault);
        }
        sleep(CALM).await;
    }
    Ok(faults)
}

/// Removes and returns the next kind that can overlap with this one.
fn take_other(nemesis: Nemesis, order: &mut Vec<Nemesis>) -> Option<Nemesis> {
    let index = order.iter().rposition(|other| nemesis.can_overlap(*other))?;
    Some(order.remove(index))
}

/// Injects a fault, and another one that begins soon after it. Waits until the system has recovered
/// from both.
async fn inject(
    cluster: &Cluster,
    client: &mut Client,
    nemesis: Nemesis,
    other: Option<Nemesis>,
) -> anyhow::Result<Vec<Fault>> {
    let world = client.world.clone();
    let (mut rng, mut other_rng) = (client.rng.fork(), client.rng.fork());
    let first = disturb(cluster, &world, &mut rng, nemesis);
    let second = async {
        let Some(other) = other else { return Ok(None) };
        sleep(Duration::from_millis(other_rng.u64(LATER_MS))).await;
        disturb(cluster, &world, &mut other_rng, other).await.map(Some)
    };
    let (first, second) = tokio::try_join!(first, second)?;
    let mut faults: Vec<_> = [Some(first), second].into_iter().flatten().collect();
    let end = world.history.now();
    let recovery = wait_until_recovered(cluster, client).await?;
    for fault in &mut faults {
        (fault.end, fault.recovery) = (end, recovery);
    }
    Ok(faults)
}

/// Injects a fault, and removes it. The fault has no recovery yet.
async fn disturb(
    cluster: &Cluster,
    world: &World,
    rng: &mut Rng,
    nemesis: Nemesis,
) -> anyhow::Result<Fault> {
    let start = world.history.now();
    let target = disturb_target(cluster, world, rng, nemesis).await.context(nemesis.name())?;
    Ok(Fault { nemesis: nemesis.name(), target, start, end: world.history.now(), recovery: None })
}

/// Injects a fault, and removes it. Returns what it affected.
async fn disturb_target(
    cluster: &Cluster,
    world: &World,
    rng: &mut Rng,
    nemesis: Nemesis,
) -> anyhow::Result<String> {
    let duration = Duration::from_millis(rng.u64(DURATION_MS));
    let target = Target::random(rng, cluster.replicas.len());
    let replica_number = rng.usize(..cluster.replicas.len());
    match nemesis {
        Nemesis::KillReplica => replica::kill(cluster, replica_number, duration).await,
        Nemesis::PauseReplica => replica::pause(cluster, replica_number, duration).await,
        Nemesis::WrongClock => {
            let offset = if rng.bool() { "+20s" } else { "-20s" };
            replica::wrong_clock(cluster, replica_number, offset, duration).await
        }
        Nemesis::BlockedLog => Ok(replica::block_log(cluster, replica_number, duration).await),
        Nemesis::ChangeRelease => replica::change_release(cluster, replica_number).await,
        Nemesis::CancelledCalls => {
            world.set_cancels_calls(true);
            sleep(duration).await;
            world.set_cancels_calls(false);
            Ok("calls".to_owned())
        }
        Nemesis::KillPostgres
        | Nemesis::PausePostgres
        | Nemesis::KillRedis
        | Nemesis::PauseRedis
        | Nemesis::FullRedis => store::disturb(cluster, nemesis, duration).await,
        Nemesis::SwitchOver
        | Nemesis::KillLeader
        | Nemesis::IsolateLeader
        | Nemesis::IsolateStandby
        | Nemesis::CutEtcd
        | Nemesis::KillEtcd => leader::disturb(cluster, nemesis, rng, duration).await,
        Nemesis::KillRedisMaster
        | Nemesis::PauseRedisMaster
        | Nemesis::IsolateRedisMaster
        | Nemesis::FailOverRedis => redis_master::replace(cluster, nemesis, rng, duration).await,
        Nemesis::CutPostgres
        | Nemesis::CutRedis
        | Nemesis::HoldPostgres
        | Nemesis::HoldRedis
        | Nemesis::SlowPostgres
        | Nemesis::SlowRedis => Ok(network::disturb(cluster, nemesis, target, duration).await),
    }
}

/// Waits until every replica answers a fully consistent Check and a write. Returns the time that
/// passed; `None` if a replica does not recover in time.
async fn wait_until_recovered(
    cluster: &Cluster,
    client: &mut Client,
) -> anyhow::Result<Option<Duration>> {
    let began = Instant::now();
    for (number, replica) in cluster.replicas.iter().enumerate() {
        let mut replica = replica.lock().await;
        while !client.probe(number).await {
            if began.elapsed() > RECOVERY_LIMIT {
                return Ok(None);
            }
            replica.start_again_if_ended(&cluster.program).await?;
            sleep(Duration::from_millis(10)).await;
        }
        replica.finish_start();
    }
    Ok(Some(began.elapsed()))
}
