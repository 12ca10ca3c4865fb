//! The scenarios, one per file. A scenario compares several kinds of calls. In each of several
//! rounds, it measures one kind after the other, so that a drift of the machine's speed affects all
//! of them. A result is the median of its values in the rounds.

mod batch;
mod cold;
mod flood;
mod memory;
mod neighbours;
mod overhead;
mod refresh;
mod requests;
mod search;
mod sign_in;
mod size;
mod start;
mod tail;

use std::{collections::BTreeSet, time::Duration};

use crate::{
    load::{self, Calls, CpuUsage, Latencies, Load, LoadMode, Meter, Span},
    report::{Report, Run},
    world::{World, server::Server},
};

/// Number of users in the database of most scenarios.
pub const USERS: u64 = 100_000;

/// One call at a time.
const ONE_BY_ONE: LoadMode = LoadMode::Closed { connections: 1, streams: 1 };

/// 64 calls in flight.
const CONCURRENT: LoadMode = LoadMode::Closed { connections: 8, streams: 8 };

/// A scenario: one question that the benchmark answers.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// The question.
    pub about: &'static str,
    /// Returns the sizes of the databases that the scenario needs, in users. The argument is the
    /// size of the largest database.
    sizes: fn(u64) -> Vec<u64>,
    /// Runs the scenario.
    pub run: fn(&mut Bench) -> anyhow::Result<()>,
}

/// All scenarios, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "overhead",
        about: "cost of a decision compared with gRPC itself",
        sizes: default_size,
        run: overhead::run,
    },
    Scenario {
        name: "tail",
        about: "latency of the slowest decisions compared with the slowest empty calls",
        sizes: default_size,
        run: tail::run,
    },
    Scenario {
        name: "batch",
        about: "cost of a call with a hundred decisions compared with one decision",
        sizes: default_size,
        run: batch::run,
    },
    Scenario {
        name: "flood",
        about: "effect of a flood of sign-ins on decisions",
        sizes: default_size,
        run: flood::run,
    },
    Scenario {
        name: "neighbours",
        about: "effect of one tenant's maximum load on another tenant's decisions and sign-ins",
        sizes: default_size,
        run: neighbours::run,
    },
    Scenario {
        name: "sign_in",
        about: "cost of a sign-in compared with argon2, two signatures and a commit",
        sizes: default_size,
        run: sign_in::run,
    },
    Scenario {
        name: "refresh",
        about: "cost of a refresh compared with two signatures and a commit",
        sizes: default_size,
        run: refresh::run,
    },
    Scenario {
        name: "search",
        about: "time for a page of a search through 100,000 users",
        sizes: default_size,
        run: search::run,
    },
    Scenario {
        name: "cold",
        about: "cost of a decision about a subject that is not in the cache",
        sizes: default_size,
        run: cold::run,
    },
    Scenario {
        name: "memory",
        about: "memory that a cached subject takes in the server",
        sizes: default_size,
        run: memory::run,
    },
    Scenario {
        name: "start",
        about: "start time of the server, and size of its binary",
        sizes: default_size,
        run: start::run,
    },
    Scenario {
        name: "size",
        about: "whether the cost of a decision depends on the size of the database",
        sizes: size::sizes,
        run: size::run,
    },
];

fn default_size(_: u64) -> Vec<u64> {
    vec![USERS]
}

/// Sizes of all databases that these scenarios need, smallest first.
pub fn sizes(scenarios: &[&Scenario], users: u64) -> Vec<u64> {
    let all: BTreeSet<u64> =
        scenarios.iter().flat_map(|scenario| (scenario.sizes)(users)).collect();
    all.into_iter().collect()
}

/// Number and length of the measurements.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Number of rounds.
    pub rounds: u64,
    /// Warm-up before each measurement.
    pub warm_up: Duration,
    /// Length of each measurement.
    pub measured: Duration,
}

/// Shared state of the scenarios.
pub struct Bench {
    /// The servers and their data.
    pub world: World,
    pub report: Report,
    pub effort: Effort,
    /// Number of users in the largest database.
    pub users: u64,
}

impl Bench {
    /// Measures calls and records the result.
    fn measure(
        &mut self,
        round: u64,
        server: &Server,
        calls: &Calls,
        mode: LoadMode,
    ) -> anyhow::Result<Run> {
        let loads = [Load { calls, addr: server.addr, mode }];
        let runs = self.measure_all(round, server, &loads)?;
        runs.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing was measured"))
    }

    /// Measures several loads that run concurrently, and records the results.
    fn measure_all(
        &mut self,
        round: u64,
        server: &Server,
        loads: &[Load<'_>],
    ) -> anyhow::Result<Vec<Run>> {
        let cores = self.world.cores.clone();
        let meter = Meter::new(server.pid(), cores.clone());
        let span = Span { warm_up: self.effort.warm_up, measured: self.effort.measured };
        let (latencies, usage) = load::send(&cores.load, loads, span, &meter)?;
        let runs: Vec<_> = loads
            .iter()
            .zip(&latencies)
            .map(|(load, latencies)| {
                Run::new(load, server.users, round, latencies, usage, loads.len() == 1)
            })
            .collect();
        for run in &runs {
            self.report.add_run(run);
        }
        Ok(runs)
    }

    /// Sends every request of `calls` once and records the measurement. Also returns the number of
    /// statements that Postgres received for all these requests.
    fn send_each_once(
        &mut self,
        round: u64,
        server: &Server,
        calls: &Calls,
        mode: LoadMode,
    ) -> anyhow::Result<(Run, f64)> {
        let users = server.users.ok_or_else(|| anyhow::anyhow!("a server without a database"))?;
        let load = Load { calls, addr: server.addr, mode };
        let count_before = self.world.statement_count(users)?;
        let (latencies, usage) = self.send(server, &load)?;
        let statements = self.world.statement_count(users)? - count_before;
        let run = Run::new(&load, server.users, round, &latencies, usage, true);
        self.report.add_run(&run);
        Ok((run, crate::to_f64(statements)))
    }

    /// Sends every request of `calls` once, so that the server caches the tokens and subjects of
    /// the requests.
    fn warm_up(&self, server: &Server, calls: &Calls) -> anyhow::Result<()> {
        self.send(server, &Load { calls, addr: server.addr, mode: CONCURRENT })?;
        Ok(())
    }

    fn send(&self, server: &Server, load: &Load<'_>) -> anyhow::Result<(Latencies, CpuUsage)> {
        let cores = &self.world.cores;
        load::send_each_once(&cores.load, load, &Meter::new(server.pid(), cores.clone()))
    }
}
