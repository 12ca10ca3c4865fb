//! One measurement.

use serde::Serialize;

use crate::load::{Latencies, Pace, Part, Used};

/// Share of the core's time that the server must use in a closed loop. Below this share, the load
/// and not the server limited the rate.
const FULL_CORE: f64 = 0.95;

/// Share of the server's core that other processes may use. Above this share, the measurement is
/// disturbed.
const DISTURBANCE_LIMIT: f64 = 0.1;

/// Shares of calls whose latencies the report contains, for the table and the plot.
const SHARES: [f64; 20] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.999, 0.9995, 0.9999, 1.0,
];

/// Results of one part of the load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    /// Name of the calls.
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
    /// Pairs of a share of the calls and the latency within which that share was answered, in
    /// microseconds.
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
    /// Describes the result of a part on a server with `users` users in its database. `alone`
    /// is true when no other part ran at the same time.
    pub fn new(
        part: &Part<'_>,
        users: Option<u64>,
        round: u64,
        latencies: &Latencies,
        used: Used,
        alone: bool,
    ) -> Self {
        let (pace, closed) = match part.pace {
            Pace::Closed { connections, streams } => {
                (format!("closed {connections} × {streams}"), true)
            }
            Pace::Open { rate } => (format!("open {rate:.0}/s"), false),
        };
        let answers = crate::number((latencies.calls() + latencies.refused).max(1));
        let cpu = used.cpu.as_secs_f64();
        Self {
            scenario: "",
            name: part.calls.name,
            users,
            round,
            pace,
            calls: latencies.calls(),
            refused: latencies.refused,
            seconds: latencies.span.as_secs_f64(),
            per_second: latencies.per_second(),
            p50: latencies.micros_at(0.5),
            p90: latencies.micros_at(0.9),
            p95: latencies.micros_at(0.95),
            p99: latencies.micros_at(0.99),
            p999: latencies.micros_at(0.999),
            max: latencies.micros_at(1.0),
            distribution: SHARES.map(|share| (share, latencies.micros_at(share))).to_vec(),
            cpu_micros: cpu * 1e6 / answers,
            server_cpu: cpu / latencies.span.as_secs_f64(),
            server_core: used.server_core,
            load_cores: used.load_cores,
            client_bound: closed && alone && cpu / latencies.span.as_secs_f64() < FULL_CORE,
        }
    }

    /// Whether other processes used a considerable part of the server's core.
    pub fn is_disturbed(&self) -> bool {
        self.server_core - self.server_cpu > DISTURBANCE_LIMIT
    }

    /// Whether this was an open loop.
    pub fn is_open(&self) -> bool {
        self.pace.starts_with("open")
    }

    /// Whether `other` is another round of the same measurement. The rate of an open loop may
    /// differ.
    pub fn is_of(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.scenario, run.name, run.users, run.is_open());
        key(self) == key(other) && (self.is_open() || self.pace == other.pace)
    }
}
