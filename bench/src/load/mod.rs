//! Load generators.
//!
//! Each load core has one thread with its own runtime. A closed loop keeps a fixed number of calls
//! in flight and finds the server's highest rate. An open loop sends calls at fixed times, whether
//! or not earlier calls were answered. It measures each latency from the time when the call was
//! due. So a stall of the server is part of the latencies of all calls that were due during the
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
pub use meter::{Meter, Used};
pub use once::once;

use crate::cores::pin;

/// Number of connections, unless a pace sets another number.
pub const CONNECTIONS: usize = 8;

/// Calls in flight on each connection.
pub const STREAMS: usize = 32;

/// Pace of the calls.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Closed loop: a caller sends its next call after the answer to its previous call.
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

impl Pace {
    /// Enough calls in flight to use the server's full capacity.
    pub const FULL: Self = Self::Closed { connections: CONNECTIONS, streams: STREAMS };

    /// The part of this pace that one of several cores generates.
    fn share(self, core: usize, cores: usize) -> Self {
        match self {
            Self::Closed { connections, streams } => {
                let connections_of_core = (core..connections).step_by(cores).count();
                Self::Closed { connections: connections_of_core, streams }
            }
            Self::Open { rate } => Self::Open { rate: rate / crate::number(cores as u64) },
        }
    }
}

/// Calls to one address at one pace.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub calls: &'a Calls,
    pub addr: SocketAddr,
    pub pace: Pace,
}

/// Duration of the load.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Warm-up before the measurement.
    pub warm_up: Duration,
    /// The measurement.
    pub measured: Duration,
}

/// A [`Span`] as three moments: start of the warm-up, start and end of the measurement.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    from: Instant,
    until: Instant,
}

/// Runs all parts at once. Returns the latencies of each part, and the CPU time of all parts
/// together.
///
/// # Errors
/// Returns an error when a server cannot be reached or an answer is wrong.
pub fn drive(
    cores: &[usize],
    parts: &[Part<'_>],
    span: Span,
    meter: &Meter,
) -> anyhow::Result<(Vec<Latencies>, Used)> {
    // Give all threads time to connect.
    let begin = Instant::now() + Duration::from_millis(50);
    let from = begin + span.warm_up;
    let window = Window { begin, from, until: from + span.measured };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.len())
            .map(|index| scope.spawn(move || work(cores, index, parts, window)))
            .collect();
        sleep_until(window.from);
        let before = meter.read()?;
        sleep_until(window.until);
        let used = meter.read()?.since(&before);
        let mut latencies: Vec<Latencies> =
            parts.iter().map(|_| Latencies::new(span.measured)).collect();
        for worker in workers {
            let recorders =
                worker.join().map_err(|_| anyhow!("a thread of the load panicked"))??;
            latencies.iter_mut().zip(recorders).for_each(|(all, one)| all.add(&one));
        }
        Ok((latencies, used))
    })
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Runs one core's share of all parts.
fn work(
    cores: &[usize],
    index: usize,
    parts: &[Part<'_>],
    window: Window,
) -> anyhow::Result<Vec<Recorder>> {
    pin(&cores[index..=index])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut running = Vec::new();
        for part in parts {
            let pace = part.pace.share(index, cores.len());
            let calls = part.calls.clone();
            let connections = match pace {
                Pace::Closed { connections, .. } => connections,
                Pace::Open { .. } => CONNECTIONS,
            };
            let connections = connection::open(part.addr, connections).await?;
            running.push(tokio::spawn(async move {
                match pace {
                    Pace::Closed { streams, .. } => {
                        closed::run(&calls, &connections, streams, window).await
                    }
                    Pace::Open { rate } => open::run(&calls, &connections, rate, window).await,
                }
            }));
        }
        let mut recorders = Vec::new();
        for part in running {
            recorders.push(part.await.context("a task of the load panicked")??);
        }
        Ok(recorders)
    })
}
