//! The deadline of the call that the current task serves.
//!
//! The gate sets the deadline, and the code that waits for a store reads it. A task that a call
//! spawns has no deadline, and neither has background work.

use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `work` with a deadline that [`remaining`] reads.
pub async fn scope<T>(deadline: Instant, work: impl Future<Output = T>) -> T {
    DEADLINE.scope(deadline, work).await
}

/// The time until the current call's deadline, zero when it has passed; `None` outside of
/// a call.
#[must_use]
pub fn remaining() -> Option<Duration> {
    DEADLINE.try_with(|deadline| deadline.saturating_duration_since(Instant::now())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_remaining_time_is_known_only_inside_the_scope() {
        assert_eq!(remaining(), None);
        let deadline = Instant::now() + Duration::from_mins(1);
        let remaining_time =
            scope(deadline, async { remaining() }).await.expect("the scope has a deadline");
        assert!(
            Duration::ZERO < remaining_time && remaining_time <= Duration::from_mins(1),
            "{remaining_time:?}"
        );
        assert_eq!(scope(Instant::now(), async { remaining() }).await, Some(Duration::ZERO));
        assert_eq!(remaining(), None);
    }
}
