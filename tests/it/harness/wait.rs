//! Waiting with a timeout.

use std::time::Duration;

/// Awaits a future. Panics when the future takes longer than `seconds`.
#[track_caller]
pub fn within_seconds<F: Future>(seconds: u64, future: F) -> impl Future<Output = F::Output> {
    let timed_future = tokio::time::timeout(Duration::from_secs(seconds), future);
    let caller = std::panic::Location::caller();
    async move { timed_future.await.unwrap_or_else(|_| panic!("{caller}: not within {seconds} s")) }
}

/// Polls a condition every 10 ms until it is true. Panics after `seconds`.
#[track_caller]
pub fn wait_until<F: Future<Output = bool>>(
    seconds: u64,
    condition: impl Fn() -> F,
) -> impl Future<Output = ()> {
    within_seconds(seconds, async move {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}
