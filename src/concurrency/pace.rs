//! Yields in long work, so that calls share a thread fairly.
//!
//! A thread runs one task at a time. Work whose length a tenant controls (a batch, a long list)
//! calls [`Pace::pause`] between its items. After one millisecond of work it lets the thread's
//! other tasks run. The call's deadline takes effect at these yields: the gate drops a call
//! that is still running at its deadline.

use std::time::{Duration, Instant};

use tokio::task;

/// Time that a task may work before it yields.
const SLICE: Duration = Duration::from_millis(1);

/// Measures how long a task has worked without a yield.
pub struct Pace {
    since: Instant,
}

impl Pace {
    /// Starts the measurement now.
    #[must_use]
    pub fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Lets other tasks run if this task has worked for a full slice.
    pub async fn pause(&mut self) {
        if self.since.elapsed() >= SLICE {
            task::yield_now().await;
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures_util::poll;

    use super::*;

    /// N21
    #[tokio::test]
    async fn work_yields_once_for_each_slice() {
        let mut pace = Pace { since: Instant::now() + Duration::from_hours(1) };
        assert_eq!(poll!(pin!(pace.pause())), Poll::Ready(()), "a slice has not passed");
        pace.since = Instant::now().checked_sub(SLICE).expect("a past");
        {
            let mut pause = pin!(pace.pause());
            assert_eq!(poll!(pause.as_mut()), Poll::Pending, "others run");
            assert_eq!(poll!(pause.as_mut()), Poll::Ready(()));
        }
        assert!(pace.since.elapsed() < Duration::from_mins(1), "the next slice began");
    }
}
