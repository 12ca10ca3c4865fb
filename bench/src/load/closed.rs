//! The closed loop.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context;
use tonic::client::Grpc;

use super::{Calls, Recorder, Verdict, Window, connection::Connection};

/// Keeps `streams` calls in progress on each connection until the window ends. A
/// caller that is refused waits for as long as it is asked to.
///
/// # Errors
/// Those of [`Calls::send`].
pub(super) async fn run(
    calls: &Calls,
    connections: &[Grpc<Connection>],
    streams: usize,
    window: Window,
) -> anyhow::Result<Recorder> {
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    tokio::time::sleep_until(window.begin.into()).await;
    let callers: Vec<_> = connections
        .iter()
        .flat_map(|connection| (0..streams).map(move |_| connection.clone()))
        .map(|connection| {
            tokio::spawn(call_on(calls.clone(), connection, window, recorder.clone()))
        })
        .collect();
    for caller in callers {
        caller.await.context("a caller panicked")??;
    }
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(recorder.take())
}

async fn call_on(
    calls: Calls,
    mut connection: Grpc<Connection>,
    window: Window,
    recorder: Arc<Mutex<Recorder>>,
) -> anyhow::Result<()> {
    let mut started = Instant::now();
    while started < window.until {
        let verdict = calls.send(calls.next(), &mut connection).await?;
        let ended = Instant::now();
        // What was answered in the window is what the server's time was spent on.
        if (window.from..window.until).contains(&ended) {
            let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            recorder.record(verdict, ended - started);
        }
        started = match verdict {
            Verdict::Refused(wait) => {
                tokio::time::sleep(wait).await;
                Instant::now()
            }
            _ => ended,
        };
    }
    Ok(())
}
