//! Waiting that ends.

use std::time::Duration;

/// What a future gives, if it does within these seconds.
#[track_caller]
pub fn within<F: Future>(seconds: u64, future: F) -> impl Future<Output = F::Output> {
    let limit = tokio::time::timeout(Duration::from_secs(seconds), future);
    let place = std::panic::Location::caller();
    async move { limit.await.unwrap_or_else(|_| panic!("{place}: not within {seconds} s")) }
}

/// Asks again and again until it is so, within these seconds.
pub async fn until<F: Future<Output = bool>>(seconds: u64, is_so: impl Fn() -> F) {
    within(seconds, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
