//! Calls with large messages, on threads that serve no others.
//!
//! To decode a megabyte takes tens of milliseconds, which all calls of a serving thread
//! would wait for.

use std::sync::Arc;

use anyhow::Context;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use crate::{ids::TenantId, priority, shares::Shares};

/// A message beyond this many bytes is large. To decode one of this size takes less than a
/// millisecond.
pub(super) const LARGE: usize = 32 * 1024;

/// Calls that are worked on at once for each thread, at most. Others wait, each until its
/// deadline: most of them for Postgres.
const CALLS_OF_THREAD: usize = 8;

/// The threads for calls with large messages.
pub(super) struct LargeCalls {
    /// Present until dropped.
    runtime: Option<Runtime>,
    shares: Arc<Shares>,
}

impl LargeCalls {
    /// Starts them: half as many as serve.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start(serving: usize) -> anyhow::Result<Self> {
        let threads = (serving / 2).max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("large-calls")
            .on_thread_start(|| priority::set(priority::LARGE_CALLS))
            .enable_all()
            .build()
            .context("can't start the threads for large messages")?;
        Ok(Self { runtime: Some(runtime), shares: Shares::new(threads * CALLS_OF_THREAD) })
    }

    /// Works on a call there, when it is the turn of its tenant; `None` when it panicked.
    /// Given up, it ends.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let _permit = self.shares.acquire(tenant).await;
        // A set, for it ends its tasks when it is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(call, self.runtime.as_ref()?.handle());
        tasks.join_next().await?.ok()
    }
}

impl Drop for LargeCalls {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
