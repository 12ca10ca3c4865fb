//! Logs that Redis refuses writes because it has no memory left (`maxmemory` with the policy
//! `noeviction`). Redis still answers, and calls continue without it, so the log would otherwise
//! not show this state.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fred::error::Error;
use tokio::time::{Instant, sleep};

/// Interval between two checks whether Redis accepts writes again.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time without a refused write after which Redis is assumed to accept writes again. An audit event
/// that Redis refuses is sent again each second, and each refusal is recorded. So after this time,
/// no audit event waits for Redis.
const QUIET: Duration = Duration::from_secs(10);

/// Whether Redis refused a write because it has no memory left. The text is searched for the
/// message, because in Redis 6 the text of a script's error begins with other words.
pub(super) fn is_out_of_memory(error: &Error) -> bool {
    error.details().contains("OOM command not allowed")
}

/// When Redis last refused a write; `None` while it accepts writes.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Option<Instant>>);

impl Refusals {
    /// Records a refused write, and logs the first one.
    pub(super) fn record(&self) {
        if self.last().replace(Instant::now()).is_none() {
            tracing::warn!(
                "Redis has no memory left and refuses writes; calls continue without it. \
                 Raise its maxmemory"
            );
        }
    }

    /// Logs when Redis accepts writes again. Never returns.
    pub(super) async fn log_ends(&self) {
        loop {
            sleep(INTERVAL).await;
            let mut last = self.last();
            if last.is_some_and(|last| last.elapsed() >= QUIET) {
                *last = None;
                tracing::info!("Redis accepts writes again");
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
