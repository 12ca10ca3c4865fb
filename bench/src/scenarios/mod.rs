//! The questions, one file each. What a scenario compares it measures in turn, in
//! each of several rounds: what drifts, drifts for all. The figure is the median of
//! the rounds' ratios.

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
    load::{self, Calls, Latencies, Meter, Pace, Part, Span, Used},
    report::{Report, Run},
    world::{World, server::Server},
};

/// The users of the database that most scenarios ask.
pub const USERS: u64 = 100_000;

/// One call after the other.
const ONE_BY_ONE: Pace = Pace::Closed { connections: 1, streams: 1 };

/// 64 calls at once, where each is sent once.
const WIDE: Pace = Pace::Closed { connections: 8, streams: 8 };

/// A question.
pub struct Scenario {
    /// For the command line.
    pub name: &'static str,
    /// What is asked.
    pub about: &'static str,
    /// The users of the databases that it takes, of which the largest has so many.
    sizes: fn(u64) -> Vec<u64>,
    /// Finds out.
    pub run: fn(&mut Bench) -> anyhow::Result<()>,
}

/// All of them, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "overhead",
        about: "what a decision costs beyond gRPC itself",
        sizes: usual,
        run: overhead::run,
    },
    Scenario {
        name: "tail",
        about: "how much later than an empty call's the slowest decisions come",
        sizes: usual,
        run: tail::run,
    },
    Scenario {
        name: "batch",
        about: "what a hundred decisions in one call cost, against one",
        sizes: usual,
        run: batch::run,
    },
    Scenario {
        name: "flood",
        about: "what a flood of sign-ins does to decisions",
        sizes: usual,
        run: flood::run,
    },
    Scenario {
        name: "neighbours",
        about: "what a tenant that does its worst does to another's decisions and sign-ins",
        sizes: usual,
        run: neighbours::run,
    },
    Scenario {
        name: "sign_in",
        about: "what a sign-in costs beyond argon2, two signatures and a commit",
        sizes: usual,
        run: sign_in::run,
    },
    Scenario {
        name: "refresh",
        about: "what a refresh costs beyond two signatures and a commit",
        sizes: usual,
        run: refresh::run,
    },
    Scenario {
        name: "search",
        about: "how long a page takes of a search through 100,000 users",
        sizes: usual,
        run: search::run,
    },
    Scenario {
        name: "cold",
        about: "what it takes to decide about a subject that is not in memory",
        sizes: usual,
        run: cold::run,
    },
    Scenario {
        name: "memory",
        about: "what a subject takes in the server's memory",
        sizes: usual,
        run: memory::run,
    },
    Scenario {
        name: "start",
        about: "how long a server takes until it serves, and how large the program is",
        sizes: usual,
        run: start::run,
    },
    Scenario {
        name: "size",
        about: "whether a decision's cost depends on how much there is in Postgres",
        sizes: size::sizes,
        run: size::run,
    },
];

fn usual(_: u64) -> Vec<u64> {
    vec![USERS]
}

/// The sizes that scenarios take, smallest first.
pub fn sizes(scenarios: &[&Scenario], users: u64) -> Vec<u64> {
    let all: BTreeSet<u64> =
        scenarios.iter().flat_map(|scenario| (scenario.sizes)(users)).collect();
    all.into_iter().collect()
}

/// How much time is spent.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Rounds.
    pub rounds: u64,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Each measurement.
    pub measured: Duration,
}

/// What scenarios work with.
pub struct Bench {
    /// Servers and data.
    pub world: World,
    /// What was found.
    pub report: Report,
    /// How long to look.
    pub effort: Effort,
    /// The users of the largest database.
    pub users: u64,
}

impl Bench {
    /// Measures calls, and records it.
    fn measure(
        &mut self,
        round: u64,
        server: &Server,
        calls: &Calls,
        pace: Pace,
    ) -> anyhow::Result<Run> {
        let parts = [Part { calls, addr: server.addr, pace }];
        let runs = self.measure_all(round, server, &parts)?;
        runs.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing was measured"))
    }

    /// Measures several kinds of calls at once, and records it.
    fn measure_all(
        &mut self,
        round: u64,
        server: &Server,
        parts: &[Part<'_>],
    ) -> anyhow::Result<Vec<Run>> {
        let cores = self.world.cores.clone();
        let meter = Meter::new(server.pid(), cores.clone());
        let span = Span { warm_up: self.effort.warm_up, measured: self.effort.measured };
        let (taken, used) = load::drive(&cores.load, parts, span, &meter)?;
        let runs: Vec<_> = parts
            .iter()
            .zip(&taken)
            .map(|(part, taken)| Run::new(part, server.users, round, taken, used, parts.len() == 1))
            .collect();
        for run in &runs {
            self.report.record(run);
        }
        Ok(runs)
    }

    /// Sends every request of `calls` once, and records it; says also how often
    /// Postgres was asked for all of them.
    fn once(
        &mut self,
        round: u64,
        server: &Server,
        calls: &Calls,
        pace: Pace,
    ) -> anyhow::Result<(Run, f64)> {
        let users = server.users.ok_or_else(|| anyhow::anyhow!("a server without a database"))?;
        let part = Part { calls, addr: server.addr, pace };
        let before = self.world.asked(users)?;
        let (taken, used) = self.send(server, &part)?;
        let asked = self.world.asked(users)? - before;
        let run = Run::new(&part, server.users, round, &taken, used, true);
        self.report.record(&run);
        Ok((run, crate::number(asked)))
    }

    /// Sends every request of `calls` once, so that the server has met them. It
    /// takes what is sent again from its memory.
    fn warm(&self, server: &Server, calls: &Calls) -> anyhow::Result<()> {
        self.send(server, &Part { calls, addr: server.addr, pace: WIDE })?;
        Ok(())
    }

    fn send(&self, server: &Server, part: &Part<'_>) -> anyhow::Result<(Latencies, Used)> {
        let cores = &self.world.cores;
        load::once(&cores.load, part, &Meter::new(server.pid(), cores.clone()))
    }
}
