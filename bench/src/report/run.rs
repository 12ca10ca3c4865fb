//! One run: the measured values of one load in one round.

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
    /// The load mode. `closed 8 × 32`: a closed loop over 8 connections, with 32 calls in flight on
    /// each connection. `open 1000/s`: an open loop with 1000 calls per second.
    #[serde(rename = "pace")]
    pub mode: String,
    /// Number of calls with a good response ([`Verdict::Good`](crate::load::Verdict::Good)).
    #[serde(rename = "calls")]
    pub good_calls: u64,
    /// Number of calls that the server refused or the client cancelled.
    pub refused: u64,
    /// Length of the measurement, in seconds.
    pub seconds: f64,
    /// Good responses per second.
    pub per_second: f64,
    /// Median latency, in microseconds. All latencies are of the good responses only.
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
    /// Processor time of the server per call (good or refused), in microseconds. Meaningful only
    /// when no other load ran at the same time, because the processor time for all loads is divided
    /// by the number of calls of this load.
    pub cpu_micros: f64,
    /// The processor time of the server process, for all loads, divided by the elapsed time: 1 is
    /// one full core.
    #[serde(rename = "server_cpu")]
    pub server_process_busy: f64,
    /// Share of the time in which the server's core was busy with any process, from 0 to 1.
    #[serde(rename = "server_core")]
    pub server_core_busy: f64,
    /// Share of the time in which the cores of the load generator were busy, from 0 to 1. The
    /// average of these cores.
    #[serde(rename = "load_cores")]
    pub load_cores_busy: f64,
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
        let all_calls = crate::to_f64((latencies.good_calls() + latencies.refused).max(1));
        let cpu_seconds = usage.server_process_time.as_secs_f64();
        let server_process_busy = cpu_seconds / latencies.duration.as_secs_f64();
        Self {
            // The report sets the scenario when the run is added.
            scenario: "",
            name: load.calls.name,
            users,
            round,
            mode,
            good_calls: latencies.good_calls(),
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
            cpu_micros: cpu_seconds * 1e6 / all_calls,
            server_process_busy,
            server_core_busy: usage.server_core_busy,
            load_cores_busy: usage.load_cores_busy,
            client_bound: is_closed && is_only_load && server_process_busy < FULL_CORE,
        }
    }

    /// Whether other processes used more of the server's core than [`DISTURBANCE_LIMIT`].
    pub fn is_disturbed(&self) -> bool {
        self.server_core_busy - self.server_process_busy > DISTURBANCE_LIMIT
    }

    /// Whether this was an open loop.
    pub fn is_open(&self) -> bool {
        self.mode.starts_with("open")
    }

    /// Whether both runs are rounds of one measurement: same scenario, calls, number of users and
    /// load mode. The rate of an open loop is ignored, because a round may derive it from the
    /// round's own closed loop.
    pub fn is_same_measurement(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.scenario, run.name, run.users, run.is_open());
        key(self) == key(other) && (self.is_open() || self.mode == other.mode)
    }
}
