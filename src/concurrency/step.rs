//! A bound for the steps of background workers and commands.

use std::{io, time::Duration};

use tokio::time::{self, Instant};

use super::deadline;
use crate::error::{Error, Result};

/// Maximum duration of one step of a background worker or a command, such as one batch. Statements
/// and waits for connections have shorter timeouts. This bound also holds if the network breaks
/// without an error: no reply arrives then, and no timeout of Postgres helps.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs one step, for [`STEP_TIMEOUT`] at most. Its connection is closed after the timeout, so the
/// next step uses another connection.
///
/// # Errors
/// The error of the step; UNAVAILABLE after the timeout.
pub fn bounded<T>(step: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
    // A step may be large, so it is not part of the returned future.
    let step = Box::pin(step);
    async move {
        let step = deadline::scope(Instant::now() + STEP_TIMEOUT, step);
        time::timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|_| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "a store did not answer in time");
            Err(Error::Database(sqlx::Error::Io(error)))
        })
    }
}
