//! A bound for the steps of background workers and commands.

use std::{io, time::Duration};

use tokio::time::{self, Instant};

use super::deadline;
use crate::error::{Error, Result};

/// Maximum duration of one step of a background worker or a command, such as one batch. Statements
/// and waits for connections have shorter timeouts. This bound also holds if the network breaks
/// without an error. Then no reply arrives, not even the error of a timeout that Postgres applies.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs one step, for [`STEP_TIMEOUT`] at most. A timeout closes the connection of the step, so the
/// next step uses another connection.
///
/// # Errors
/// The error of the step; UNAVAILABLE after the timeout.
pub fn bounded<T>(step: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
    // The future of a step may be large. It is boxed, so that the returned future stays small.
    let step = Box::pin(step);
    async move {
        let step = deadline::scope(Instant::now() + STEP_TIMEOUT, step);
        time::timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|_| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "a store did not answer in time");
            Err(Error::Database(sqlx::Error::Io(error)))
        })
    }
}
