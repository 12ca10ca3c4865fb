//! Open-loop load: calls at a fixed rate.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tonic::client::Grpc;

use super::{Calls, Recorder, Window, connection::Connection, timer::Timer};

/// Maximum number of calls in flight. Above the maximum, the server cannot follow the rate and
/// latencies have no meaning. The maximum is high enough for a stall of one second, because the
/// report must show such a stall.
const MAX_IN_PROGRESS: usize = 100_000;

/// Sends each call at its due time until the window ends, then waits for all answers.
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
    let mut callers = JoinSet::new();
    let timer = Timer::new()?;
    for (due, connection) in schedule(window.begin, rate)
        .take_while(|due| *due < window.until)
        .zip(connections.iter().cycle())
    {
        timer.until(due).await?;
        while let Some(result) = callers.try_join_next() {
            result.context("a caller panicked")??;
        }
        ensure!(callers.len() < MAX_IN_PROGRESS, "{}: {rate:.0}/s is too much", calls.name);
        let (calls, recorder) = (calls.clone(), recorder.clone());
        let is_measured = (window.from..window.until).contains(&due);
        callers.spawn(call_once(calls, connection.clone(), due, is_measured.then_some(recorder)));
    }
    while let Some(result) = callers.join_next().await {
        result.context("a caller panicked")??;
    }
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(recorder.take())
}

/// Moments at which calls are due.
fn schedule(begin: Instant, rate: f64) -> impl Iterator<Item = Instant> {
    // Each moment is calculated from the start, so that rounding errors do not add up.
    (0_u64..).map(move |index| begin + Duration::from_secs_f64(crate::number(index) / rate))
}

async fn call_once(
    calls: Calls,
    mut connection: Grpc<Connection>,
    due: Instant,
    recorder: Option<Arc<Mutex<Recorder>>>,
) -> anyhow::Result<()> {
    let verdict = calls.send(calls.next(), &mut connection).await?;
    if let Some(recorder) = recorder {
        let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.record(verdict, due.elapsed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_due_at_an_even_pace() {
        let begin = Instant::now();
        let due: Vec<_> = schedule(begin, 3.0).take(3001).map(|due| due - begin).collect();
        assert_eq!(due[0], Duration::ZERO);
        assert_eq!(due[3], Duration::from_secs(1));
        assert_eq!(due[3000], Duration::from_secs(1000));
        assert!(due.is_sorted());
    }
}
