//! Open-loop load: calls at a fixed rate.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tonic::client::Grpc;

use super::{Calls, Recorder, Window, connection::Connection, timer::Timer};

/// Maximum number of calls in flight. More calls in flight show that the server can't follow the
/// rate, so latencies would have no meaning. The maximum is high enough for a stall of one second,
/// because the report must show such a stall.
const MAX_IN_PROGRESS: usize = 100_000;

/// Sends each call at its scheduled time until the window ends, then waits for all responses.
///
/// # Errors
/// Returns an error when the server cannot follow the rate, and the errors of [`Calls::send`].
pub(super) async fn run(
    calls: &Calls,
    connections: &[Grpc<Connection>],
    rate: f64,
    window: Window,
) -> anyhow::Result<Recorder> {
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    let mut tasks = JoinSet::new();
    let timer = Timer::new()?;
    for (send_time, connection) in schedule(window.warm_up_start, rate)
        .take_while(|send_time| *send_time < window.end)
        .zip(connections.iter().cycle())
    {
        timer.wait_until(send_time).await?;
        while let Some(result) = tasks.try_join_next() {
            result.context("a call panicked")??;
        }
        ensure!(
            tasks.len() < MAX_IN_PROGRESS,
            "{}: the server can't follow a rate of {rate:.0}/s",
            calls.name
        );
        let (calls, recorder) = (calls.clone(), recorder.clone());
        let is_measured = (window.start..window.end).contains(&send_time);
        tasks.spawn(call_once(
            calls,
            connection.clone(),
            send_time,
            is_measured.then_some(recorder),
        ));
    }
    while let Some(result) = tasks.join_next().await {
        result.context("a call panicked")??;
    }
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(recorder.take())
}

/// The scheduled times of the calls.
fn schedule(start: Instant, rate: f64) -> impl Iterator<Item = Instant> {
    // Each moment is calculated from the start, so that rounding errors do not add up.
    (0_u64..).map(move |index| start + Duration::from_secs_f64(crate::to_f64(index) / rate))
}

async fn call_once(
    calls: Calls,
    mut connection: Grpc<Connection>,
    send_time: Instant,
    recorder: Option<Arc<Mutex<Recorder>>>,
) -> anyhow::Result<()> {
    let verdict = calls.send(calls.next_request(), &mut connection).await?;
    if let Some(recorder) = recorder {
        let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.record(verdict, send_time.elapsed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_scheduled_at_equal_intervals() {
        let start = Instant::now();
        let send_times: Vec<_> =
            schedule(start, 3.0).take(3001).map(|send_time| send_time - start).collect();
        assert_eq!(send_times[0], Duration::ZERO);
        assert_eq!(send_times[3], Duration::from_secs(1));
        assert_eq!(send_times[3000], Duration::from_secs(1000));
        assert!(send_times.is_sorted());
    }
}
