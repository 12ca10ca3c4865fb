//! Attempts at a password, which run to their end whether or not their caller waits: one
//! that is given up is compared, counted and recorded like any other.
//!
//! Each has a place in the hashing queue, which bounds how many there are.

use std::sync::{Arc, Weak};

use opentelemetry::context::FutureExt;
use tracing::Instrument;

use crate::error::{Error, Result};

/// Tells an attempt whether its caller still waits.
pub struct Waiting(Weak<()>);

impl Waiting {
    pub(super) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// Runs an attempt in a task of its own.
///
/// # Errors
/// As the attempt, and INTERNAL when its task died.
pub async fn run_to_end<T, F>(attempt: impl FnOnce(Waiting) -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let caller = Arc::new(());
    let work = attempt(Waiting(Arc::downgrade(&caller)));
    let ended = tokio::spawn(work.with_current_context().in_current_span()).await;
    drop(caller);
    ended.map_err(|_| Error::defect("a task that compares a password died"))?
}
