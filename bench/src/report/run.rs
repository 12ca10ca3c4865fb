//! One measurement.

use serde::Serialize;

use crate::load::{Latencies, Pace, Part, Used};

/// Share of the core's time that the server must use in a closed loop. Below it the load, not
/// the server, limited the rate.
const FULL: f64 = 0.95;

/// Share of the server's core that other processes may use. Above it the measurement counts as
/// disturbed.
const DISTURBED: f64 = 0.1;

/// Shares of calls whose latencies are kept, for the table and the plot.
const SHARES: [f64; 20] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.999, 0.9995, 0.9999, 1.0,
];

/// Results of one part of the load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    /// What was called.
    pub name: &'static str,
    /// Number of users in the server's database, if it has one.
    pub users: Option<u64>,
    pub round: u64,
    /// `closed 8 × 32`, or `open 1000/s`.
    pub pace: String,
    /// Number of good answers.
    pub calls: u64,
    /// Number of refusals.
    pub refused: u64,
    /// Length of the measurement, in seconds.
    pub seconds: f64,
    /// Good answers per second.
    pub per_second: f64,
    /// Median latency, in microseconds.
    pub p50: f64,
    /// 90th percentile, in microseconds.
    pub p90: f64,
    /// 95th percentile, in microseconds.
    pub p95: f64,
    /// 99th percentile, in microseconds.
    pub p99: f64,
    /// 99.9th percentile, in microseconds.
    pub p999: f64,
    /// Highest latency, in microseconds.
    pub max: f64,
    /// Shares of the calls with the latency within which they were answered, in microseconds.
    pub distribution: Vec<(f64, f64)>,
    /// Processor time of the server per answer, in microseconds. With several parts, the time
    /// of all parts is divided by the answers of this part.
    pub cpu_micros: f64,
    /// The server's processor time divided by the elapsed time.
    pub server_cpu: f64,
    /// Share of the time in which the server's core was busy.
    pub server_core: f64,
    /// Share of the time in which the load's cores were busy, on average.
    pub load_cores: f64,
    /// Whether the load, not the server, limited a closed loop.
    pub client_bound: bool,
}

impl Run {
    /// Describes the result of a part on a server with this many users. `alone` says that no
    /// other part ran at the same time.
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

    /// Whether other processes used a considerable part of the server's core.
    pub fn is_disturbed(&self) -> bool {
        self.server_core - self.server_cpu > DISTURBED
    }

    /// Whether this was an open loop.
    pub fn is_open(&self) -> bool {
        self.pace.starts_with("open")
    }

    /// Whether `other` is another round of the same measurement. The rate of an open loop may
    /// differ.
    pub fn is_of(&self, other: &Self) -> bool {
        let kind = |run: &Self| (run.scenario, run.name, run.users, run.is_open());
        kind(self) == kind(other) && (self.is_open() || self.pace == other.pace)
    }
}
