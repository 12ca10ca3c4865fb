//! The deadline of the call that a task works for.
//!
//! The gate sets it; what waits for a store reads it. Tasks that a call spawns, and
//! background work, have none.

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
    async fn work_sees_the_time_it_has_left_and_nothing_outside_does() {
        assert_eq!(remaining(), None);
        let soon = Instant::now() + Duration::from_mins(1);
        let left = scope(soon, async { remaining() }).await.expect("a deadline");
        assert!(Duration::ZERO < left && left <= Duration::from_mins(1), "{left:?}");
        assert_eq!(scope(Instant::now(), async { remaining() }).await, Some(Duration::ZERO));
        assert_eq!(remaining(), None);
    }
}
