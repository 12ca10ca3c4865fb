//! Waiting for a condition.

use std::time::Duration;

use anyhow::Context;

/// Runs `wait`, a loop that looks at a condition and [`pause`]s between looks, at most for `limit`.
pub(super) async fn within(
    limit: Duration,
    what: &str,
    wait: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::time::timeout(limit, wait)
        .await
        .with_context(|| format!("{what}: not within {limit:?}"))?
}

/// The time between two looks at a condition.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
