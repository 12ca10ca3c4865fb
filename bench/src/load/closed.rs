//! Closed-loop load: a fixed number of calls in flight.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use tonic::client::Grpc;

use super::{Calls, Recorder, Verdict, Window, connection::Connection};

/// Keeps `streams` calls in flight on each connection until the window ends. After a refusal, a
/// client waits 1 to 2 times the retry delay of the response.
///
/// # Errors
/// Returns the errors of [`Calls::send`].
pub(super) async fn run(
    calls: &Calls,
    connections: &[Grpc<Connection>],
    streams: usize,
    window: Window,
) -> anyhow::Result<Recorder> {
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    tokio::time::sleep_until(window.warm_up_start.into()).await;
    let clients: Vec<_> = connections
        .iter()
        .flat_map(|connection| (0..streams).map(move |_| connection.clone()))
        .zip(0..)
        .map(|(connection, client)| {
            tokio::spawn(call_in_loop(calls.clone(), connection, client, window, recorder.clone()))
        })
        .collect();
    for client in clients {
        client.await.context("a client panicked")??;
    }
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(recorder.take())
}

async fn call_in_loop(
    calls: Calls,
    mut connection: Grpc<Connection>,
    client: u64,
    window: Window,
    recorder: Arc<Mutex<Recorder>>,
) -> anyhow::Result<()> {
    let mut spread_index = client;
    let mut start_time = Instant::now();
    while start_time < window.end {
        let verdict = calls.send(calls.next_request(), &mut connection).await?;
        let end_time = Instant::now();
        // A call is recorded if its response arrives during the measurement, because the CPU time
        // that the server spent on this call is part of the CPU time that the benchmark measures.
        if (window.start..window.end).contains(&end_time) {
            let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            recorder.record(verdict, end_time - start_time);
        }
        start_time = match verdict {
            Verdict::Refused(wait) => {
                tokio::time::sleep(spread_wait(wait, spread_index)).await;
                spread_index += 1;
                Instant::now()
            }
            _ => end_time,
        };
    }
    Ok(())
}

/// Returns 1 to 2 times the wait. The factors of consecutive indices are spread evenly (golden
/// ratio). So clients that were refused at the same moment do not retry at the same moment.
fn spread_wait(wait: Duration, spread_index: u64) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    wait.mul_f64(1.0 + (crate::to_f64(spread_index) * GOLDEN).fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_clients_retry_at_evenly_spread_times() {
        let mut waits: Vec<_> =
            (0..100).map(|index| spread_wait(Duration::from_secs(1), index)).collect();
        waits.sort_unstable();
        assert!(waits[0] >= Duration::from_secs(1) && waits[99] < Duration::from_secs(2));
        let longest_gap = waits.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
        // An even spread of 100 waits over one second has gaps of 10 ms.
        assert!(longest_gap < Some(Duration::from_millis(20)), "{longest_gap:?}");
    }
}
