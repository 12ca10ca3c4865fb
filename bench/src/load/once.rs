//! Load that sends every request once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, bail};
use tonic::client::Grpc;

use super::{
    Calls, Latencies, Meter, Pace, Part, Recorder, Used, connection, connection::Connection,
};
use crate::cores::pin;

/// Sends every request of a part once. Returns the latencies and the used CPU time.
///
/// # Errors
/// Returns an error when the server cannot be reached, an answer is wrong, or the pace is an
/// open loop, which has no end.
pub fn once(cores: &[usize], part: &Part<'_>, meter: &Meter) -> anyhow::Result<(Latencies, Used)> {
    let Pace::Closed { connections, streams } = part.pace else { bail!("an open loop never ends") };
    // One core is enough: these calls wait for Postgres.
    pin(cores)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connections = connection::open(part.addr, connections).await?;
        let recorder = Arc::new(Mutex::new(Recorder::new()?));
        let (before, started) = (meter.read()?, Instant::now());
        let callers: Vec<_> = connections
            .iter()
            .flat_map(|connection| (0..streams).map(move |_| connection.clone()))
            .map(|connection| {
                tokio::spawn(call_on(part.calls.clone(), connection, recorder.clone()))
            })
            .collect();
        for caller in callers {
            caller.await.context("a caller panicked")??;
        }
        let used = meter.read()?.since(&before);
        let mut latencies = Latencies::new(started.elapsed());
        latencies.add(&recorder.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((latencies, used))
    })
}

async fn call_on(
    calls: Calls,
    mut connection: Grpc<Connection>,
    recorder: Arc<Mutex<Recorder>>,
) -> anyhow::Result<()> {
    while let Some(request) = calls.next_unsent() {
        let started = Instant::now();
        let verdict = calls.send(request, &mut connection).await?;
        let latency = started.elapsed();
        recorder.lock().unwrap_or_else(PoisonError::into_inner).record(verdict, latency);
    }
    Ok(())
}
