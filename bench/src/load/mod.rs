//! Load generator.
//!
//! Each load core has one thread with its own runtime. A closed loop keeps a fixed number of calls
//! in flight and finds the server's highest rate. An open loop sends each call at a scheduled time,
//! whether or not earlier calls were answered, and measures its latency from the scheduled time. So
//! a stall of the server is part of the latencies of all calls that were scheduled during the
//! stall.

mod calls;
mod closed;
mod codec;
mod connection;
mod latencies;
mod meter;
mod once;
mod open;
mod timer;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};

pub use calls::{Calls, Request, Verdict, serving_or_allowed};
pub use latencies::Latencies;
use latencies::Recorder;
pub use meter::{CpuUsage, Meter};
pub use once::send_each_once;

use crate::cores::pin;

/// Number of connections, unless a load mode sets another number.
pub const CONNECTIONS: usize = 8;

/// Calls in flight on each connection.
pub const STREAMS: usize = 32;

/// How the load generator sends calls: in a closed loop or an open loop.
#[derive(Clone, Copy, Debug)]
pub enum LoadMode {
    /// Closed loop: each of a fixed number of clients sends its next call after the response to its
    /// previous call.
    Closed {
        /// Number of connections.
        connections: usize,
        /// Calls in flight on each connection.
        streams: usize,
    },
    /// Open loop: a fixed rate over [`CONNECTIONS`] connections.
    Open {
        /// Calls per second.
        rate: f64,
    },
}

impl LoadMode {
    /// Enough calls in flight to use the server's full capacity.
    pub const FULL: Self = Self::Closed { connections: CONNECTIONS, streams: STREAMS };

    /// The part of this load that one of several cores sends.
    fn part_of_core(self, core: usize, cores: usize) -> Self {
        match self {
            Self::Closed { connections, streams } => {
                let connections_of_core = (core..connections).step_by(cores).count();
                Self::Closed { connections: connections_of_core, streams }
            }
            Self::Open { rate } => Self::Open { rate: rate / crate::to_f64(cores as u64) },
        }
    }
}

/// Calls to one address in one load mode.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub calls: &'a Calls,
    pub addr: SocketAddr,
    pub mode: LoadMode,
}

/// Lengths of the warm-up and of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Length of the warm-up before the measurement.
    pub warm_up: Duration,
    /// Length of the measurement.
    pub measured: Duration,
}

/// A [`Span`] as three moments.
#[derive(Clone, Copy)]
struct Window {
    warm_up_start: Instant,
    /// Start of the measurement.
    start: Instant,
    /// End of the measurement.
    end: Instant,
}

/// Sends all loads concurrently. Returns the latencies of each load, and the CPU usage during the
/// measurement.
///
/// # Errors
/// Returns an error when a server cannot be reached or a response is wrong.
pub fn send(
    cores: &[usize],
    loads: &[Load<'_>],
    span: Span,
    meter: &Meter,
) -> anyhow::Result<(Vec<Latencies>, CpuUsage)> {
    // Give all threads time to connect.
    let warm_up_start = Instant::now() + Duration::from_millis(50);
    let start = warm_up_start + span.warm_up;
    let window = Window { warm_up_start, start, end: start + span.measured };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.len())
            .map(|index| scope.spawn(move || send_from_core(cores, index, loads, window)))
            .collect();
        sleep_until(window.start);
        let start_reading = meter.read()?;
        sleep_until(window.end);
        let usage = meter.read()?.since(&start_reading);
        let mut latencies: Vec<Latencies> =
            loads.iter().map(|_| Latencies::new(span.measured)).collect();
        for thread in threads {
            let recorders =
                thread.join().map_err(|_| anyhow!("a thread of the load generator panicked"))??;
            latencies.iter_mut().zip(recorders).for_each(|(sum, recorder)| sum.add(&recorder));
        }
        Ok((latencies, usage))
    })
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Sends one core's part of all loads.
fn send_from_core(
    cores: &[usize],
    index: usize,
    loads: &[Load<'_>],
    window: Window,
) -> anyhow::Result<Vec<Recorder>> {
    pin(&cores[index..=index])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for load in loads {
            let mode = load.mode.part_of_core(index, cores.len());
            let calls = load.calls.clone();
            let connections = match mode {
                LoadMode::Closed { connections, .. } => connections,
                LoadMode::Open { .. } => CONNECTIONS,
            };
            let connections = connection::open(load.addr, connections).await?;
            tasks.push(tokio::spawn(async move {
                match mode {
                    LoadMode::Closed { streams, .. } => {
                        closed::run(&calls, &connections, streams, window).await
                    }
                    LoadMode::Open { rate } => open::run(&calls, &connections, rate, window).await,
                }
            }));
        }
        let mut recorders = Vec::new();
        for task in tasks {
            recorders.push(task.await.context("a task of the load generator panicked")??);
        }
        Ok(recorders)
    })
}
