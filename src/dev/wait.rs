//! Waits with a timeout.

use std::time::Duration;

use anyhow::Context;

/// Runs `wait`, a loop that checks a condition and calls [`pause`] between the checks, for at most
/// `limit`. `awaited_event` is the awaited event, for the error message.
pub(super) async fn with_timeout(
    limit: Duration,
    awaited_event: &str,
    wait: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::time::timeout(limit, wait)
        .await
        .with_context(|| format!("{awaited_event}: not within {limit:?}"))?
}

/// Sleeps between two checks of a condition.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
