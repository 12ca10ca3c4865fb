//! Nemeses: each injects one kind of fault, keeps it for a while, and removes it.

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
    stores::{RedisOption, StoresOption},
    workload::Client,
};

/// Time between two faults, after the system has recovered.
const CALM: Duration = Duration::from_millis(1500);

/// Shortest and longest duration of a fault, in milliseconds.
const DURATION_MS: std::ops::Range<u64> = 800..3500;

/// Timeout of the recovery after a fault.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nemesis {
    KillReplica,
    PauseReplica,
    WrongClock,
    BlockedLog,
    ChangeRelease,
    CancelledCalls,
    KillPostgres,
    KillRedis,
    PausePostgres,
    PauseRedis,
    FullRedis,
    CutPostgres,
    CutRedis,
    HoldPostgres,
    HoldRedis,
    SlowPostgres,
    SlowRedis,
    SwitchOver,
    KillLeader,
    KillRedisMaster,
    PauseRedisMaster,
    IsolateRedisMaster,
    FailOverRedis,
}

/// All kinds of faults, with their names.
pub const NEMESES: [(Nemesis, &str); 23] = [
    (Nemesis::KillReplica, "kill-replica"),
    (Nemesis::PauseReplica, "pause-replica"),
    (Nemesis::WrongClock, "wrong-clock"),
    (Nemesis::BlockedLog, "blocked-log"),
    (Nemesis::ChangeRelease, "change-release"),
    (Nemesis::CancelledCalls, "cancelled-calls"),
    (Nemesis::KillPostgres, "kill-postgres"),
    (Nemesis::KillRedis, "kill-redis"),
    (Nemesis::PausePostgres, "pause-postgres"),
    (Nemesis::PauseRedis, "pause-redis"),
    (Nemesis::FullRedis, "full-redis"),
    (Nemesis::CutPostgres, "cut-postgres"),
    (Nemesis::CutRedis, "cut-redis"),
    (Nemesis::HoldPostgres, "hold-postgres"),
    (Nemesis::HoldRedis, "hold-redis"),
    (Nemesis::SlowPostgres, "slow-postgres"),
    (Nemesis::SlowRedis, "slow-redis"),
    (Nemesis::SwitchOver, "switchover"),
    (Nemesis::KillLeader, "kill-leader"),
    (Nemesis::KillRedisMaster, "kill-redis-master"),
    (Nemesis::PauseRedisMaster, "pause-redis-master"),
    (Nemesis::IsolateRedisMaster, "isolate-redis-master"),
    (Nemesis::FailOverRedis, "redis-failover"),
];

/// Replicas that a fault affects.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    One(usize),
    All,
}

impl Nemesis {
    pub fn name(self) -> &'static str {
        NEMESES.iter().find(|(nemesis, _)| *nemesis == self).map_or("", |(_, name)| name)
    }

    /// Whether the fault can be injected into these stores.
    pub fn suits(self, stores: &StoresOption, redis: RedisOption) -> bool {
        let is_single = redis == RedisOption::Single;
        match self {
            Self::KillPostgres | Self::PausePostgres => matches!(stores, StoresOption::Private),
            Self::KillRedis | Self::PauseRedis => {
                is_single && !matches!(stores, StoresOption::Urls { .. })
            }
            Self::FullRedis | Self::CutRedis | Self::HoldRedis | Self::SlowRedis => is_single,
            Self::KillRedisMaster
            | Self::PauseRedisMaster
            | Self::IsolateRedisMaster
            | Self::FailOverRedis => !is_single,
            Self::SwitchOver | Self::KillLeader => matches!(stores, StoresOption::Patroni),
            _ => true,
        }
    }
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

/// Injects random faults of these kinds until `end`. Returns all faults.
///
/// # Errors
/// Returns an error when a fault can't be injected or removed.
pub async fn torment(
    cluster: &mut Cluster,
    client: &mut Client,
    kinds: &[Nemesis],
    end: Time,
) -> anyhow::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let mut order = Vec::new();
    sleep(CALM).await;
    while client.world.history.now() < end {
        // Each kind occurs once before one occurs again.
        if order.is_empty() {
            order = kinds.to_vec();
            client.rng.shuffle(&mut order);
        }
        let Some(nemesis) = order.pop() else { break };
        let fault = inject(cluster, client, nemesis).await.context(nemesis.name())?;
        crate::say(&format!(
            "{:7.3}s {} ({}), {:.1}s, recovered in {}",
            fault.start.as_secs_f64(),
            fault.nemesis,
            fault.target,
            fault.end.saturating_sub(fault.start).as_secs_f64(),
            fault.recovery.map_or("NO TIME".to_owned(), |time| format!("{time:.1?}")),
        ));
        faults.push(fault);
        sleep(CALM).await;
    }
    Ok(faults)
}

async fn inject(
    cluster: &mut Cluster,
    client: &mut Client,
    nemesis: Nemesis,
) -> anyhow::Result<Fault> {
    let duration = Duration::from_millis(client.rng.u64(DURATION_MS));
    let target = Target::random(&mut client.rng, cluster.replicas.len());
    let one = client.rng.usize(..cluster.replicas.len());
    let start = client.world.history.now();
    let target = match nemesis {
        Nemesis::KillReplica => replica::kill(cluster, one, duration).await?,
        Nemesis::PauseReplica => replica::pause(cluster, one, duration).await?,
        Nemesis::WrongClock => {
            let offset = if client.rng.bool() { "+20s" } else { "-20s" };
            replica::wrong_clock(cluster, one, offset, duration).await?
        }
        Nemesis::BlockedLog => replica::block_log(cluster, one, duration).await,
        Nemesis::ChangeRelease => replica::change_release(cluster, one).await?,
        Nemesis::CancelledCalls => {
            client.world.set_cancels_calls(true);
            sleep(duration).await;
            client.world.set_cancels_calls(false);
            "calls".to_owned()
        }
        Nemesis::KillPostgres => store::kill_postgres(cluster, duration).await?,
        Nemesis::KillRedis => store::kill_redis(cluster, duration).await?,
        Nemesis::PausePostgres => store::pause_postgres(cluster, duration).await?,
        Nemesis::PauseRedis => store::pause_redis(cluster, duration).await?,
        Nemesis::FullRedis => store::fill_redis(cluster, duration).await?,
        Nemesis::SwitchOver => leader::switch_over(cluster).await?,
        Nemesis::KillLeader => leader::kill(cluster).await?,
        Nemesis::KillRedisMaster
        | Nemesis::PauseRedisMaster
        | Nemesis::IsolateRedisMaster
        | Nemesis::FailOverRedis => {
            redis_master::replace(cluster, nemesis, &mut client.rng, duration).await?
        }
        Nemesis::CutPostgres
        | Nemesis::CutRedis
        | Nemesis::HoldPostgres
        | Nemesis::HoldRedis
        | Nemesis::SlowPostgres
        | Nemesis::SlowRedis => network::disturb(cluster, nemesis, target, duration).await,
    };
    let end = client.world.history.now();
    let recovery = wait_until_recovered(client).await;
    Ok(Fault { nemesis: nemesis.name(), target, start, end, recovery })
}

/// Waits until every replica answers a fully consistent Check and a write. Returns the time that
/// passed; `None` if a replica does not recover in time.
async fn wait_until_recovered(client: &mut Client) -> Option<Duration> {
    let began = Instant::now();
    for replica in 0..client.world.replicas.len() {
        while !client.probe(replica).await {
            if began.elapsed() > RECOVERY_LIMIT {
                return None;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    Some(began.elapsed())
}
