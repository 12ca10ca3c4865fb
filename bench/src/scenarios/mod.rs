//! The questions, one file each. What a scenario compares it measures in turn, in
//! each of several rounds: what drifts, drifts for all. The figure is the median of
//! the rounds' ratios.

mod batch;
mod flood;
mod overhead;
mod requests;
mod tail;

use std::{collections::BTreeSet, time::Duration};

use crate::{
    load::{self, Calls, Meter, Pace, Part, Span},
    report::{Report, Run},
    world::{World, server::Server},
};

/// The users of the database that most scenarios ask.
pub const USERS: u64 = 100_000;

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
            .map(|(part, taken)| Run::new(part, round, taken, used, parts.len() == 1))
            .collect();
        self.report.runs.extend(runs.iter().cloned());
        Ok(runs)
    }

    /// Sends every request of `calls` once, so that the server has met them. It
    /// takes what is sent again from its memory.
    fn warm(&self, server: &Server, calls: &Calls) -> anyhow::Result<()> {
        let cores = &self.world.cores;
        let meter = Meter::new(server.pid(), cores.clone());
        load::once(&cores.load, calls, server.addr, (8, 8), &meter)?;
        Ok(())
    }
}
