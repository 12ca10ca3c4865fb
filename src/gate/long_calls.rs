//! Runs long calls (large messages, lists and changes) on threads of their own.
//!
//! A thread runs one call at a time. Decoding one megabyte takes tens of milliseconds, and one
//! page of a list takes up to a tenth of a second. Even in slices of one millisecond, several
//! such calls would delay decisions and sign-ins on the same threads.

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
    ids::{TenantId, UserId},
    pg,
};

/// Maximum size of a message that is not large, in bytes. Decoding a message of this size takes
/// less than a millisecond.
pub(super) const LARGE: usize = 32 * 1024;

/// Maximum number of long calls in progress for each thread. Further calls wait until their
/// deadline. Most calls in progress wait for Postgres, so a thread can serve many.
const CALLS_OF_THREAD: usize = 32;

/// Maximum number of long calls in progress for one subject. The rest of the tenant's share
/// stays free for its other subjects.
const CALLS_OF_SUBJECT: usize = 8;

/// The threads for long calls.
pub(super) struct LongCalls {
    /// `None` only while `self` is dropped.
    runtime: Option<Runtime>,
    shares: Arc<FairPermits>,
    subjects: Subjects,
    /// The runtime that opens connections to Postgres. The thread that opens a connection polls
    /// its input, and later users of the connection must not wait for the threads of long
    /// calls.
    connecting: Handle,
}

impl LongCalls {
    /// Starts the threads: half as many as serve calls, at least one.
    ///
    /// # Errors
    /// Returns an error when the operating system can't start the threads.
    pub(super) fn start(serving: usize) -> anyhow::Result<Self> {
        let threads = (serving / 2).max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("long-calls")
            .on_thread_start(|| priority::set(priority::LONG_CALLS))
            .enable_all()
            .build()
            .context("can't start the threads for long calls")?;
        let shares = FairPermits::new(threads * CALLS_OF_THREAD);
        let (subjects, connecting) = (Subjects::default(), Handle::current());
        Ok(Self { runtime: Some(runtime), shares, subjects, connecting })
    }

    /// Waits for a permit of the subject and a permit of the tenant, then runs the call on these
    /// threads. Returns `None` when the call panicked. Dropping the returned future cancels the
    /// call.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        subject: UserId,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let subject_permits = self.subjects.permits(subject);
        let _subject_permit = subject_permits.acquire().await.ok()?;
        let _tenant_permit = self.shares.acquire(tenant).await;
        let call = pg::connect_on(self.connecting.clone(), call);
        // A `JoinSet`, because it aborts its tasks when it is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(call, self.runtime.as_ref()?.handle());
        tasks.join_next().await?.ok()
    }
}

/// The permits of each subject that has long calls.
#[derive(Default)]
struct Subjects(Mutex<HashMap<UserId, Weak<Semaphore>>>);

impl Subjects {
    fn permits(&self, subject: UserId) -> Arc<Semaphore> {
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = subjects.get(&subject).and_then(Weak::upgrade) {
            return permits;
        }
        // Entries of subjects without calls are removed, so that the map stays small.
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
