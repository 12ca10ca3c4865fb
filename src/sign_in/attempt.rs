//! Runs password attempts to completion, even when the client cancels the call: the password of a
//! cancelled attempt is compared, and the attempt is counted and recorded like any other attempt.
//!
//! Each attempt holds a slot in the hashing queue, which bounds the number of attempts.

use std::sync::{Arc, Weak};

use opentelemetry::context::FutureExt;
use tracing::Instrument;

use crate::error::{Error, Result};

/// Tells an attempt whether the client cancelled the call. Refers to a value that the future of the
/// call owns. The server drops that future when the client cancels the call.
pub struct Cancellation(Weak<()>);

impl Cancellation {
    /// Whether the client cancelled the call.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Runs an attempt in its own task, which continues when the returned future is dropped.
///
/// # Errors
/// Returns the error of the attempt; INTERNAL when its task panicked.
pub async fn run_to_end<T, F>(attempt: impl FnOnce(Cancellation) -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let client_waits = Arc::new(());
    let task = attempt(Cancellation(Arc::downgrade(&client_waits)));
    let result = tokio::spawn(task.with_current_context().in_current_span()).await;
    drop(client_waits);
    result.map_err(|_| Error::defect("a task that compares a password panicked"))?
}
