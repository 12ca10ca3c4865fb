//! Waiting with a timeout.

use std::time::Duration;

/// Awaits a future. Panics when the future takes longer than `seconds`.
#[track_caller]
pub fn within<F: Future>(seconds: u64, future: F) -> impl Future<Output = F::Output> {
    let limit = tokio::time::timeout(Duration::from_secs(seconds), future);
    let place = std::panic::Location::caller();
    async move { limit.await.unwrap_or_else(|_| panic!("{place}: not within {seconds} s")) }
}

/// Polls a condition every 10 ms until it is true. Panics after `seconds`.
pub async fn until<F: Future<Output = bool>>(seconds: u64, condition: impl Fn() -> F) {
    within(seconds, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
