//! Runs password attempts to completion, even when the client cancels the call: a cancelled
//! attempt is compared, counted and recorded like any other.
//!
//! Each attempt holds a slot in the hashing queue, which bounds their number.

use std::sync::{Arc, Weak};

use opentelemetry::context::FutureExt;
use tracing::Instrument;

use crate::error::{Error, Result};

/// Reports to an attempt whether its caller still waits.
pub struct Waiting(Weak<()>);

impl Waiting {
    /// Whether the client cancelled the call.
    pub(super) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Runs an attempt in its own task, which continues when the caller is dropped.
///
/// # Errors
/// Returns the error of the attempt; INTERNAL when its task panicked.
pub async fn run_to_end<T, F>(attempt: impl FnOnce(Waiting) -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let caller = Arc::new(());
    let work = attempt(Waiting(Arc::downgrade(&caller)));
    let result = tokio::spawn(work.with_current_context().in_current_span()).await;
    drop(caller);
    result.map_err(|_| Error::defect("a task that compares a password panicked"))?
}
