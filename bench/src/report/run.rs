//! One measurement.

use serde::Serialize;

use crate::load::{CpuUsage, Latencies, Load, LoadMode};

/// Share of its core's time that the server must use in a closed loop. If the server used less, the
/// load generator limited the rate, and not the server.
const FULL_CORE: f64 = 0.95;

/// Share of the server's core that other processes may use. If they used more, the measurement was
/// disturbed.
const DISTURBANCE_LIMIT: f64 = 0.1;

/// Quantiles whose latencies the report contains.
const QUANTILES: [f64; 20] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.999, 0.9995, 0.9999, 1.0,
];

/// The measured values of one load in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    /// Name of the calls.
    pub name: &'static str,
    /// Number of users in the server's database, if it has one.
    pub users: Option<u64>,
    pub round: u64,
    /// The load mode: `closed 8 × 32`, or `open 1000/s`.
    #[serde(rename = "pace")]
    pub mode: String,
    /// Number of good responses.
    pub calls: u64,
    /// Number of refusals.
    pub refused: u64,
    /// Length of the measurement, in seconds.
    pub seconds: f64,
    /// Good responses per second.
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
    /// Pairs of a quantile and its latency, in microseconds.
    pub distribution: Vec<(f64, f64)>,
    /// Processor time of the server per response (good or refused), in microseconds. If several
    /// loads ran concurrently, the processor time of all loads is divided by the responses of this
    /// load.
    pub cpu_micros: f64,
    /// The processor time of the server process divided by the elapsed time.
    pub server_cpu: f64,
    /// Share of the time in which the server's core was busy, with any process.
    pub server_core: f64,
    /// Average share of the time in which a load core was busy.
    pub load_cores: f64,
    /// Whether the load generator, and not the server, limited a closed loop.
    pub client_bound: bool,
}

impl Run {
    /// Describes one load on a server with `users` users in its database. `is_only_load` is true
    /// when no other load ran at the same time.
    pub fn new(
        load: &Load<'_>,
        users: Option<u64>,
        round: u64,
        latencies: &Latencies,
        usage: CpuUsage,
        is_only_load: bool,
    ) -> Self {
        let (mode, is_closed) = match load.mode {
            LoadMode::Closed { connections, streams } => {
                (format!("closed {connections} × {streams}"), true)
            }
            LoadMode::Open { rate } => (format!("open {rate:.0}/s"), false),
        };
        let responses = crate::to_f64((latencies.calls() + latencies.refused).max(1));
        let cpu_seconds = usage.server_process.as_secs_f64();
        let server_cpu = cpu_seconds / latencies.duration.as_secs_f64();
        Self {
            scenario: "",
            name: load.calls.name,
            users,
            round,
            mode,
            calls: latencies.calls(),
            refused: latencies.refused,
            seconds: latencies.duration.as_secs_f64(),
            per_second: latencies.per_second(),
            p50: latencies.micros_at(0.5),
            p90: latencies.micros_at(0.9),
            p95: latencies.micros_at(0.95),
            p99: latencies.micros_at(0.99),
            p999: latencies.micros_at(0.999),
            max: latencies.micros_at(1.0),
            distribution: QUANTILES
                .map(|quantile| (quantile, latencies.micros_at(quantile)))
                .to_vec(),
            cpu_micros: cpu_seconds * 1e6 / responses,
            server_cpu,
            server_core: usage.server_core,
            load_cores: usage.load_cores,
            client_bound: is_closed && is_only_load && server_cpu < FULL_CORE,
        }
    }

    /// Whether other processes used more of the server's core than [`DISTURBANCE_LIMIT`].
    pub fn is_disturbed(&self) -> bool {
        self.server_core - self.server_cpu > DISTURBANCE_LIMIT
    }

    /// Whether this was an open loop.
    pub fn is_open(&self) -> bool {
        self.mode.starts_with("open")
    }

    /// Whether `other` is another round of the same measurement. The rates of open loops may differ
    /// between rounds.
    pub fn is_same_measurement(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.scenario, run.name, run.users, run.is_open());
        key(self) == key(other) && (self.is_open() || self.mode == other.mode)
    }
}
