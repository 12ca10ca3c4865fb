//! Yields in long work, so that calls share a thread fairly.
//!
//! A thread runs one task at a time. Work whose length a tenant controls (a batch, a long list)
//! calls [`Pace::pause`] between its items. After one millisecond of work, `pause` lets the
//! thread's other tasks run. The call's deadline takes effect at these yields: the gate drops a
//! call that is still running at its deadline.

use std::time::{Duration, Instant};

use tokio::task;

/// Time for which a task works before `pause` yields.
const SLICE: Duration = Duration::from_millis(1);

/// Measures how long a task has worked without a yield.
pub struct Pace {
    slice_start: Instant,
}

impl Pace {
    /// Starts the measurement now.
    #[must_use]
    pub fn new() -> Self {
        Self { slice_start: Instant::now() }
    }

    /// Lets other tasks run if this task has worked for a full slice.
    pub async fn pause(&mut self) {
        if self.slice_start.elapsed() >= SLICE {
            task::yield_now().await;
            self.slice_start = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures_util::poll;

    use super::*;

    /// N21: long work lets other tasks run after each slice.
    #[tokio::test]
    async fn work_yields_once_for_each_slice() {
        // In the future, so that the slice can't pass during a slow test.
        let mut pace = Pace { slice_start: Instant::now() + Duration::from_hours(1) };
        assert_eq!(
            poll!(pin!(pace.pause())),
            Poll::Ready(()),
            "no yield before the slice has passed"
        );
        pace.slice_start =
            Instant::now().checked_sub(SLICE).expect("the clock started more than a slice ago");
        {
            let mut pause = pin!(pace.pause());
            assert_eq!(poll!(pause.as_mut()), Poll::Pending, "other tasks run");
            assert_eq!(poll!(pause.as_mut()), Poll::Ready(()));
        }
        assert!(pace.slice_start.elapsed() < Duration::from_mins(1), "a new slice has started");
    }
}
