//! Load, and what came of it.
//!
//! Every core that makes load has one thread with a runtime of its own. A closed
//! loop keeps a fixed number of calls in progress and finds out how many a server
//! can answer. An open loop sends calls at fixed times whether or not the earlier
//! ones were answered, and counts each one's time from when it was due: a server
//! that stalls can't hide that by keeping the load away.

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

/// Connections that load comes over, unless it is said otherwise.
pub const CONNECTIONS: usize = 8;

/// Calls in progress on each.
pub const STREAMS: usize = 32;

/// How calls follow one another.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next when one is answered.
    Closed {
        /// Over so many connections.
        connections: usize,
        /// So many at a time on each.
        streams: usize,
    },
    /// So many a second, over [`CONNECTIONS`].
    Open {
        /// Calls a second.
        rate: f64,
    },
}

impl Pace {
    /// As much as the server can take.
    pub const FULL: Self = Self::Closed { connections: CONNECTIONS, streams: STREAMS };

    /// The share of this pace that one of several cores takes over.
    fn share(self, core: usize, cores: usize) -> Self {
        match self {
            Self::Closed { connections, streams } => {
                let own = (core..connections).step_by(cores).count();
                Self::Closed { connections: own, streams }
            }
            Self::Open { rate } => Self::Open { rate: rate / crate::number(cores as u64) },
        }
    }
}

/// Calls at a pace.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// What is called.
    pub calls: &'a Calls,
    /// Where.
    pub addr: SocketAddr,
    /// How often.
    pub pace: Pace,
}

/// How long load lasts.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Until it counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measured: Duration,
}

/// The moments of a span.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    from: Instant,
    until: Instant,
}

/// Makes load of all parts at once, and says what came of each and what it cost.
///
/// # Errors
/// When a server can't be reached, or an answer is not what it must be.
pub fn drive(
    cores: &[usize],
    parts: &[Part<'_>],
    span: Span,
    meter: &Meter,
) -> anyhow::Result<(Vec<Latencies>, Used)> {
    // Long enough for all threads to be connected.
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
        let mut taken: Vec<Latencies> =
            parts.iter().map(|_| Latencies::new(span.measured)).collect();
        for worker in workers {
            let found = worker.join().map_err(|_| anyhow!("a thread of the load panicked"))??;
            taken.iter_mut().zip(found).for_each(|(all, one)| all.add(&one));
        }
        Ok((taken, used))
    })
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// One core's share.
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
