//! The kinds of faults.

use crate::stores::{RedisOption, StoresOption};

/// A kind of fault. docs/reliability.md explains each kind.
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
    IsolateLeader,
    IsolateStandby,
    CutEtcd,
    KillEtcd,
    KillRedisMaster,
    PauseRedisMaster,
    IsolateRedisMaster,
    FailOverRedis,
}

/// All kinds of faults, with their names.
pub const NEMESES: [(Nemesis, &str); 27] = [
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
    (Nemesis::IsolateLeader, "isolate-leader"),
    (Nemesis::IsolateStandby, "isolate-standby"),
    (Nemesis::CutEtcd, "cut-etcd"),
    (Nemesis::KillEtcd, "kill-etcd"),
    (Nemesis::KillRedisMaster, "kill-redis-master"),
    (Nemesis::PauseRedisMaster, "pause-redis-master"),
    (Nemesis::IsolateRedisMaster, "isolate-redis-master"),
    (Nemesis::FailOverRedis, "redis-failover"),
];

/// A part of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Replica,
    Clients,
    Postgres,
    Redis,
    /// A replica and Postgres. A change of the release uses both.
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
            Self::SwitchOver
            | Self::KillLeader
            | Self::IsolateLeader
            | Self::IsolateStandby
            | Self::CutEtcd
            | Self::KillEtcd => matches!(stores, StoresOption::Patroni(_)),
            _ => true,
        }
    }

    /// The part of the system that the fault affects.
    pub fn part(self) -> Part {
        match self {
            Self::ChangeRelease => Part::All,
            Self::KillReplica | Self::PauseReplica | Self::WrongClock | Self::BlockedLog => {
                Part::Replica
            }
            Self::CancelledCalls => Part::Clients,
            Self::KillPostgres
            | Self::PausePostgres
            | Self::CutPostgres
            | Self::HoldPostgres
            | Self::SlowPostgres
            | Self::SwitchOver
            | Self::KillLeader
            | Self::IsolateLeader
            | Self::IsolateStandby
            | Self::CutEtcd
            | Self::KillEtcd => Part::Postgres,
            Self::KillRedis
            | Self::PauseRedis
            | Self::FullRedis
            | Self::CutRedis
            | Self::HoldRedis
            | Self::SlowRedis
            | Self::KillRedisMaster
            | Self::PauseRedisMaster
            | Self::IsolateRedisMaster
            | Self::FailOverRedis => Part::Redis,
        }
    }

    /// Whether both faults can be injected at the same time.
    pub fn can_overlap(self, other: Self) -> bool {
        let (part, other) = (self.part(), other.part());
        part != other && part != Part::All && other != Part::All
    }
}
