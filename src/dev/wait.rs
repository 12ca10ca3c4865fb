//! Waits for conditions.

use std::time::Duration;

use anyhow::Context;

/// Runs `wait`, a loop that checks a condition and calls [`pause`] between checks, for at most
/// `limit`.
pub(super) async fn within(
    limit: Duration,
    what: &str,
    wait: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::time::timeout(limit, wait)
        .await
        .with_context(|| format!("{what}: not within {limit:?}"))?
}

/// The pause between two checks of a condition.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
