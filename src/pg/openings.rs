//! Checks whether the pools can open connections. The connection of the checks stays open, so the
//! checks may succeed while Postgres refuses all new connections, for example because there are too
//! many. A pool retries a refused connection without reporting the reason. So this file opens a
//! connection itself.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;

use super::{
    server_check::{self, Unfit},
    url::Server,
    waiting::{ACQUIRE_TIMEOUT, Waiting},
};

/// The pools, and the result of the last attempt to open a connection.
#[derive(Default, Debug)]
pub(super) struct Openings {
    pools: Mutex<Vec<(PgPool, Arc<Waiting>)>>,
    /// Whether the last attempt to open a connection failed.
    cannot_open: AtomicBool,
}

impl Openings {
    pub(super) fn add_pool(&self, pool: PgPool, waiting: Arc<Waiting>) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push((pool, waiting));
    }

    /// Makes the pools open their next connections to this server.
    pub(super) fn set_server(&self, server: &Server) {
        for (pool, _) in &*self.pools.lock().unwrap_or_else(PoisonError::into_inner) {
            pool.set_connect_options(server.options.clone());
        }
    }

    /// Tries to open a connection if calls wait for one, or if the last attempt failed. If this
    /// attempt fails, a pool is unusable when it has no idle connection, and its calls have waited
    /// for longer than [`ACQUIRE_TIMEOUT`].
    ///
    /// # Errors
    /// The cause, when a pool is unusable.
    pub(super) async fn check(&self, server: &Server) -> Result<(), Arc<str>> {
        let failed_before = self.cannot_open.load(Ordering::Acquire);
        if !failed_before && self.longest_wait(|_| true).is_none() {
            return Ok(());
        }
        match server_check::open(server).await {
            Ok(()) => {
                self.record_success();
                Ok(())
            }
            Err(cause) => self.record_failure(server, &cause),
        }
    }

    fn record_success(&self) {
        for (_, waiting) in &*self.pools.lock().unwrap_or_else(PoisonError::into_inner) {
            waiting.end();
        }
        if self.cannot_open.swap(false, Ordering::AcqRel) {
            tracing::info!("connections to Postgres can be opened again");
        }
    }

    fn record_failure(&self, server: &Server, cause: &Unfit) -> Result<(), Arc<str>> {
        let cause: Arc<str> = format!("{}: {cause}", server.address).into();
        if !self.cannot_open.swap(true, Ordering::AcqRel) {
            tracing::warn!(%cause, "no further connection to Postgres can be opened");
        }
        let wait = self.longest_wait(|pool| pool.num_idle() == 0);
        if wait.is_some_and(|wait| wait > ACQUIRE_TIMEOUT) { Err(cause) } else { Ok(()) }
    }

    /// The longest time that calls have waited for a connection of a chosen pool; `None` when no
    /// call waits.
    fn longest_wait(&self, is_chosen: impl Fn(&PgPool) -> bool) -> Option<Duration> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = pools.iter().filter(|(pool, _)| is_chosen(pool));
        chosen.filter_map(|(_, waiting)| waiting.duration()).max()
    }
}
