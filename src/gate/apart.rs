//! Calls that may take long, on threads that serve no others: large messages, lists and
//! changes.
//!
//! A serving thread runs one call at a time. To decode a megabyte takes tens of
//! milliseconds, and a page of a list works for up to a tenth of a second; even in slices
//! of a millisecond some of these at once would keep decisions and sign-ins waiting.

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
    concurrency::{priority, shares::Shares},
    ids::{TenantId, UserId},
    pg,
};

/// A message beyond this many bytes is large. To decode one of this size takes less than a
/// millisecond.
pub(super) const LARGE: usize = 32 * 1024;

/// Calls that are worked on at once for each thread, at most. Others wait, each until its
/// deadline. Most of them wait for Postgres.
const CALLS_OF_THREAD: usize = 32;

/// Of these one subject's, at most: the rest of its tenant's share is for the tenant's other
/// subjects.
const CALLS_OF_SUBJECT: usize = 8;

/// The threads for long calls.
pub(super) struct LongCalls {
    /// Present until dropped.
    runtime: Option<Runtime>,
    shares: Arc<Shares>,
    subjects: Subjects,
    /// Where connections to Postgres are opened: whoever uses one later must not wait for
    /// these threads.
    connecting: Handle,
}

impl LongCalls {
    /// Starts them: half as many as serve.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start(serving: usize) -> anyhow::Result<Self> {
        let threads = (serving / 2).max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("long-calls")
            .on_thread_start(|| priority::set(priority::LONG_CALLS))
            .enable_all()
            .build()
            .context("can't start the threads for long calls")?;
        let shares = Shares::new(threads * CALLS_OF_THREAD);
        let (subjects, connecting) = (Subjects::default(), Handle::current());
        Ok(Self { runtime: Some(runtime), shares, subjects, connecting })
    }

    /// Works on a call there, when it is the turn of its subject and its tenant; `None` when
    /// it panicked. Given up, it ends.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        subject: UserId,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let of_subject = self.subjects.of(subject);
        let _of_subject = of_subject.acquire().await.ok()?;
        let _of_tenant = self.shares.acquire(tenant).await;
        let call = pg::connect_on(self.connecting.clone(), call);
        // A set, for it ends its tasks when it is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(call, self.runtime.as_ref()?.handle());
        tasks.join_next().await?.ok()
    }
}

/// The permits of each subject that has calls.
#[derive(Default)]
struct Subjects(Mutex<HashMap<UserId, Weak<Semaphore>>>);

impl Subjects {
    fn of(&self, subject: UserId) -> Arc<Semaphore> {
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = subjects.get(&subject).and_then(Weak::upgrade) {
            return permits;
        }
        // Entries of subjects without calls go, so that the map stays small.
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
