//! Runs long calls (large messages, lists and changes) on separate threads.
//!
//! While the code of one call runs on a thread, the other calls on this thread wait. To decode one
//! megabyte takes tens of milliseconds, and one page of a list takes up to a tenth of a second.
//! Although a long call yields every millisecond, several long calls would delay decisions and
//! sign-ins on the same thread.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use anyhow::Context;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    concurrency::{fair_permits::FairPermits, priority},
    ids::{SubjectId, TenantId},
    pg,
};

/// Maximum size of the message of a short call, in bytes. To decode a message of this size takes
/// less than a millisecond.
pub(super) const MAX_SHORT_MESSAGE: usize = 32 * 1024;

/// Maximum number of long calls in progress for each thread. Further calls wait, at most until
/// their deadline. Most calls in progress wait for Postgres, so a thread can serve many calls.
const CALLS_OF_THREAD: usize = 32;

/// Maximum number of long calls in progress for one subject. The rest of the tenant's share is for
/// the other subjects of the tenant.
const CALLS_OF_SUBJECT: usize = 8;

/// The threads for long calls.
pub(super) struct LongCalls {
    /// `None` only during the drop of this value.
    runtime: Option<Runtime>,
    tenant_permits: Arc<FairPermits>,
    subject_permits: SubjectPermits,
    /// The runtime that opens connections to Postgres. A connection is always polled by the runtime
    /// that opened it, and short calls that use the connection later must not wait for the threads
    /// of long calls.
    connection_runtime: Handle,
}

impl LongCalls {
    /// Starts the threads: half as many as the threads that serve calls, but at least one.
    ///
    /// # Errors
    /// Returns an error when the operating system can't start the threads.
    pub(super) fn start(serving_threads: usize) -> anyhow::Result<Self> {
        let threads = (serving_threads / 2).max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("long-calls")
            .on_thread_start(|| priority::set(priority::LONG_CALLS))
            .enable_all()
            .build()
            .context("can't start the threads for long calls")?;
        Ok(Self {
            runtime: Some(runtime),
            tenant_permits: FairPermits::new(threads * CALLS_OF_THREAD),
            subject_permits: SubjectPermits::default(),
            connection_runtime: Handle::current(),
        })
    }

    /// Waits for a permit of the subject and a permit of the tenant, then runs the call on the
    /// threads for long calls. Returns `None` when the call panicked. A drop of the returned future
    /// cancels the call.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        subject: SubjectId,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let subject_permits = self.subject_permits.permits_of(subject);
        let _subject_permit = subject_permits.acquire().await.ok()?;
        let _tenant_permit = self.tenant_permits.acquire(tenant).await;
        let call = pg::connect_on(self.connection_runtime.clone(), call);
        // The drop of a `JoinSet` aborts its tasks.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(call, self.runtime.as_ref()?.handle());
        tasks.join_next().await?.ok()
    }
}

/// The permits of each subject that has long calls.
#[derive(Default)]
struct SubjectPermits(Mutex<HashMap<SubjectId, Weak<Semaphore>>>);

impl SubjectPermits {
    fn permits_of(&self, subject: SubjectId) -> Arc<Semaphore> {
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = subjects.get(&subject).and_then(Weak::upgrade) {
            return permits;
        }
        // Remove the entries of subjects without calls, so that the map stays small.
        subjects.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(CALLS_OF_SUBJECT));
        subjects.insert(subject, Arc::downgrade(&permits));
        permits
    }
}

impl Drop for LongCalls {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
