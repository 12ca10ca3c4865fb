//! Load that sends every request once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, bail};
use tonic::client::Grpc;

use super::{
    Calls, CpuUsage, Latencies, Load, LoadMode, Meter, Recorder, connection, connection::Connection,
};
use crate::cores::pin;

/// Sends every request of a load once. Returns the latencies and the CPU usage.
///
/// # Errors
/// Returns an error when the server cannot be reached, a response is wrong, or the load is an open
/// loop, which has no end.
pub fn send_each_once(
    cores: &[usize],
    load: &Load<'_>,
    meter: &Meter,
) -> anyhow::Result<(Latencies, CpuUsage)> {
    let LoadMode::Closed { connections, streams } = load.mode else {
        bail!("an open loop never ends")
    };
    // One core is enough: these calls wait for Postgres.
    pin(cores)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connections = connection::open(load.addr, connections).await?;
        let recorder = Arc::new(Mutex::new(Recorder::new()?));
        let (first_reading, start_time) = (meter.read()?, Instant::now());
        let clients: Vec<_> = connections
            .iter()
            .flat_map(|connection| (0..streams).map(move |_| connection.clone()))
            .map(|connection| {
                tokio::spawn(call_until_all_sent(load.calls.clone(), connection, recorder.clone()))
            })
            .collect();
        for client in clients {
            client.await.context("a client panicked")??;
        }
        let usage = meter.read()?.since(&first_reading);
        let mut latencies = Latencies::new(start_time.elapsed());
        latencies.add(&recorder.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((latencies, usage))
    })
}

async fn call_until_all_sent(
    calls: Calls,
    mut connection: Grpc<Connection>,
    recorder: Arc<Mutex<Recorder>>,
) -> anyhow::Result<()> {
    while let Some(request) = calls.next_unsent_request() {
        let start_time = Instant::now();
        let verdict = calls.send(request, &mut connection).await?;
        let latency = start_time.elapsed();
        recorder.lock().unwrap_or_else(PoisonError::into_inner).record(verdict, latency);
    }
    Ok(())
}
