//! Finds the primary among the servers of the URL, and stops the use of a server that is
//! unavailable or not the primary.
//!
//! All pools of the process share one [`Primary`]. While the last check found no primary, calls
//! that need a connection fail at once, with the cause, instead of waiting for a connection.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use sqlx::{Connection, PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    server_check::{self, CheckedServer, Unfit},
    url::Server,
    validity::Validity,
};

/// Wait for a connection after which the server is checked. sqlx repeats a refused connection
/// without reporting it, so a long wait can mean that the server is gone.
const SUSPICIOUS_WAIT: Duration = Duration::from_millis(50);

/// Pause between two checks: of a server that was fit at the last check, of one that was not, and
/// of one that was suspected since the last check.
const PAUSE_WHEN_FIT: Duration = Duration::from_secs(1);
const PAUSE_WHEN_UNFIT: Duration = Duration::from_millis(250);
const PAUSE_WHEN_SUSPECTED: Duration = Duration::from_millis(100);

/// The primary that the pools of this process use.
#[derive(Debug)]
pub(super) struct Primary {
    servers: Vec<Server>,
    /// Index of the server that new connections are opened to.
    current: AtomicUsize,
    /// The cause why no server can be used; `None` when the last check found the primary, and
    /// before the first check.
    outage: watch::Sender<Option<Arc<str>>>,
    /// The connection of the checks. It is not in a pool, so a check never waits for calls.
    connection: tokio::sync::Mutex<Option<PgConnection>>,
    /// Start time of the Postgres server at the last check. `None` before the first check.
    server_start: Mutex<Option<OffsetDateTime>>,
    /// Shared with the pools, which check it when they hand out a connection.
    validity: Arc<Validity>,
    suspected: Notify,
    pools: Mutex<Vec<PgPool>>,
    up: Gauge,
}

impl Primary {
    pub(super) fn new(servers: Vec<Server>) -> Self {
        Self {
            servers,
            current: AtomicUsize::new(0),
            outage: watch::Sender::new(None),
            connection: tokio::sync::Mutex::new(None),
            server_start: Mutex::default(),
            validity: Arc::new(Validity::new()),
            suspected: Notify::new(),
            pools: Mutex::default(),
            up: Gauge::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "1 when the last check found the primary of Postgres, with a schema that suits \
                    this program; otherwise 0";
        registry.register("tenantry_postgres_up", help, self.up.clone());
    }

    /// The server that new connections are opened to.
    pub(super) fn server(&self) -> &Server {
        &self.servers[self.current.load(Ordering::Acquire)]
    }

    /// Adds a pool. When another server becomes the primary, the pool opens its next connections to
    /// that server.
    pub(super) fn add_pool(&self, pool: PgPool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }

    pub(super) fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    /// Forbids the use of all connections that are open now, and requests a check.
    pub(super) fn invalidate_connections(&self) {
        self.validity.invalidate();
        self.validity.record_other_server();
        self.suspect();
    }

    /// Requests a check, because the server may be gone.
    pub(super) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Waits for `connection`, unless there is no primary.
    ///
    /// # Errors
    /// An I/O error with the cause when there is no primary.
    pub(super) async fn unless_unavailable<T>(
        &self,
        connection: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let mut changes = self.outage.subscribe();
        let suspect_later = async {
            sleep(SUSPICIOUS_WAIT).await;
            self.suspect();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            outage = changes.wait_for(Option::is_some) => {
                let cause = outage.ok().and_then(|outage| outage.clone()).unwrap_or_default();
                Err(io::Error::new(io::ErrorKind::NotConnected, cause.to_string()).into())
            }
            result = connection => result,
            () = suspect_later => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Checks the servers until the primary is found.
    ///
    /// # Errors
    /// The cause for each server, when none is a primary that suits this program.
    pub(super) async fn check(&self) -> Result<(), Arc<str>> {
        let mut connection = self.connection.lock().await;
        if self.validity.take_other_server() {
            *connection = None;
        }
        if let Some(open) = connection.as_mut() {
            match server_check::check_again(open).await {
                Ok(()) => {
                    self.up.set(1);
                    return Ok(());
                }
                // The server may only be slow. Then its connections stay valid.
                Err(Unfit::TimedOut) => {}
                // The other connections to this server are broken too, or lead to a standby.
                Err(_) => self.validity.invalidate(),
            }
            *connection = None;
        }
        match self.find().await {
            Ok((index, checked)) => {
                *connection = Some(checked.connection);
                self.record_primary(index, checked.server_start);
                Ok(())
            }
            Err(cause) => {
                self.record_outage(&cause);
                Err(cause)
            }
        }
    }

    /// Waits until the next check is due.
    pub(super) async fn wait_for_next_check(&self) {
        if self.outage.borrow().is_some() {
            return sleep(PAUSE_WHEN_UNFIT).await;
        }
        sleep(PAUSE_WHEN_SUSPECTED).await;
        let rest = PAUSE_WHEN_FIT.saturating_sub(PAUSE_WHEN_SUSPECTED);
        timeout(rest, self.suspected.notified()).await.ok();
    }

    /// Closes the connection of the checks.
    pub(super) async fn close(&self) {
        if let Some(open) = self.connection.lock().await.take() {
            // If this fails, Postgres notices the end of the connection later.
            open.close().await.ok();
        }
    }

    /// Connects to all servers at once. Returns the first one that is the primary, with its index.
    async fn find(&self) -> Result<(usize, CheckedServer), Arc<str>> {
        let connect = |(index, server)| async move { (index, server_check::connect(server).await) };
        let mut results: FuturesUnordered<_> =
            self.servers.iter().enumerate().map(connect).collect();
        let mut causes: Vec<(usize, Unfit)> = Vec::new();
        while let Some((index, result)) = results.next().await {
            match result {
                Ok(checked) => return Ok((index, checked)),
                Err(cause) => causes.push((index, cause)),
            }
        }
        causes.sort_by_key(|(index, _)| *index);
        let describe =
            |(index, cause): &(usize, Unfit)| format!("{}: {cause}", self.servers[*index].address);
        Err(causes.iter().map(describe).collect::<Vec<_>>().join("; ").into())
    }

    fn record_primary(&self, index: usize, server_start: OffsetDateTime) {
        let server = &self.servers[index];
        let mut last_start = self.server_start.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last_start.replace(server_start);
        if last != Some(server_start) {
            // Another server, or a restart of the same one.
            self.validity.invalidate();
        }
        if self.current.swap(index, Ordering::AcqRel) != index {
            if last.is_some() {
                tracing::info!(server = server.address, "another Postgres server is the primary");
            }
            let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            for pool in &*pools {
                pool.set_connect_options(server.options.clone());
            }
        }
        if self.outage.send_replace(None).is_some() {
            tracing::info!(server = server.address, "Postgres is available again");
        }
        self.up.set(1);
    }

    fn record_outage(&self, cause: &Arc<str>) {
        self.up.set(0);
        let last = self.outage.send_replace(Some(cause.clone()));
        if !last.is_some_and(|last| is_same_cause(&last, cause)) {
            tracing::warn!(%cause, "Postgres can't be used");
        }
    }
}

/// Whether two texts name the same cause. Their numbers may differ: the error of an expired
/// certificate has the current time.
fn is_same_cause(last: &str, cause: &str) -> bool {
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    words(last) == words(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N35: the cause of an outage is logged once, also if its text has the current time.
    #[test]
    fn a_cause_with_the_time_is_the_same_cause() {
        let expired = |time| format!("db: certificate expired: verification time {time} (UNIX)");
        assert!(is_same_cause(&expired(1_764_550_000), &expired(1_764_550_001)));
        assert!(!is_same_cause(&expired(1_764_550_000), "db: the server is a standby"));
    }
}
