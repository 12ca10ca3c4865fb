//! One measurement.

use serde::Serialize;

use crate::load::{Latencies, Pace, Part, Used};

/// A server that has its core for at least this share of the time is what is waited
/// for.
const FULL: f64 = 0.95;

/// More of the server's core than this in other hands spoils what is measured.
const DISTURBED: f64 = 0.1;

/// The shares of calls whose times are kept: for the table, and for the plot.
const SHARES: [f64; 20] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.999, 0.9995, 0.9999, 1.0,
];

/// What calls at a pace took, and cost.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// For which scenario.
    pub scenario: &'static str,
    /// What was called.
    pub name: &'static str,
    /// The users of the server's database, if it has one.
    pub users: Option<u64>,
    /// In which round.
    pub round: u64,
    /// `closed 8 × 32`, or `open 1000/s`.
    pub pace: String,
    /// Good answers.
    pub calls: u64,
    /// Refusals that were provoked.
    pub refused: u64,
    /// Over how many seconds.
    pub seconds: f64,
    /// Good answers a second.
    pub per_second: f64,
    /// Time of the median call, in microseconds.
    pub p50: f64,
    /// Of the slowest in ten.
    pub p90: f64,
    /// Of the slowest in twenty.
    pub p95: f64,
    /// Of the slowest in a hundred.
    pub p99: f64,
    /// Of the slowest in a thousand.
    pub p999: f64,
    /// Of the slowest.
    pub max: f64,
    /// Shares of the calls, and the time within which they were answered, in
    /// microseconds.
    pub distribution: Vec<(f64, f64)>,
    /// The server's processor time for each answer, in microseconds; for all parts
    /// together where there were several.
    pub cpu_micros: f64,
    /// The server's processor time over the time that passed.
    pub server_cpu: f64,
    /// The share of the time in which the server's core was busy.
    pub server_core: f64,
    /// The same of the load's cores.
    pub load_cores: f64,
    /// Whether a closed loop waited for itself more than for the server.
    pub client_bound: bool,
}

impl Run {
    /// Describes what was taken of a server with so many users. `alone` says that
    /// nothing else was called meanwhile.
    pub fn new(
        part: &Part<'_>,
        users: Option<u64>,
        round: u64,
        taken: &Latencies,
        used: Used,
        alone: bool,
    ) -> Self {
        let (pace, closed) = match part.pace {
            Pace::Closed { connections, streams } => {
                (format!("closed {connections} × {streams}"), true)
            }
            Pace::Open { rate } => (format!("open {rate:.0}/s"), false),
        };
        let answers = crate::number((taken.calls() + taken.refused).max(1));
        let cpu = used.cpu.as_secs_f64();
        Self {
            scenario: "",
            name: part.calls.name,
            users,
            round,
            pace,
            calls: taken.calls(),
            refused: taken.refused,
            seconds: taken.span.as_secs_f64(),
            per_second: taken.per_second(),
            p50: taken.micros_at(0.5),
            p90: taken.micros_at(0.9),
            p95: taken.micros_at(0.95),
            p99: taken.micros_at(0.99),
            p999: taken.micros_at(0.999),
            max: taken.micros_at(1.0),
            distribution: SHARES.map(|share| (share, taken.micros_at(share))).to_vec(),
            cpu_micros: cpu * 1e6 / answers,
            server_cpu: cpu / taken.span.as_secs_f64(),
            server_core: used.server_core,
            load_cores: used.load_cores,
            client_bound: closed && alone && cpu / taken.span.as_secs_f64() < FULL,
        }
    }

    /// Whether something else than the server had a good part of its core.
    pub fn is_disturbed(&self) -> bool {
        self.server_core - self.server_cpu > DISTURBED
    }

    /// Whether it was an open loop.
    pub fn is_open(&self) -> bool {
        self.pace.starts_with("open")
    }

    /// Whether this is another round of the same. The rate of an open loop may differ.
    pub fn is_of(&self, other: &Self) -> bool {
        let kind = |run: &Self| (run.scenario, run.name, run.users, run.is_open());
        kind(self) == kind(other) && (self.is_open() || self.pace == other.pace)
    }
}
