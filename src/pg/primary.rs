//! Finds the primary among the servers of the URL, and stops the use of a server that is
//! unavailable or not the primary.
//!
//! All pools of the process share one [`Primary`]. While the last check found no primary, calls
//! that need a connection fail immediately, with the cause, instead of waiting for a connection.

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
    openings::Openings,
    other_servers::{self, Report},
    server_check::{self, CheckedServer, Unfit},
    timelines::UsedTimelines,
    url::Server,
    validity::Validity,
    waiting::Waiting,
};

/// When a call has waited this long for a connection, the server is checked. sqlx retries a refused
/// connection without reporting the error, so a long wait can mean that the server is gone.
const SUSPICIOUS_WAIT: Duration = Duration::from_millis(50);

/// Pause before the next check when the last check found a primary that is fit for use.
const PAUSE_WHEN_FIT: Duration = Duration::from_secs(1);

/// Pause before the next check when the last check found no primary that is fit for use.
const PAUSE_WHEN_UNFIT: Duration = Duration::from_millis(250);

/// Pause before the next check when, since the last check, a call suspected that the server is
/// gone.
const PAUSE_WHEN_SUSPECTED: Duration = Duration::from_millis(100);

/// Pause between two looks at all servers of the URL. A look asks each server whether it accepts
/// writes.
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Time to wait for the answers of the other servers after a primary has answered. Another server
/// may be a primary with a higher timeline.
const WAIT_FOR_OTHERS: Duration = Duration::from_millis(250);

/// The primary that the pools of this process use.
#[derive(Debug)]
pub(super) struct Primary {
    servers: Vec<Server>,
    /// Index of the server that new connections are opened to.
    current: AtomicUsize,
    /// The reason why no server can be used; `None` when the last check found the primary, and
    /// before the first check.
    outage: watch::Sender<Option<Arc<str>>>,
    /// The connection of the checks. It is not in a pool, so a check never waits for calls.
    connection: tokio::sync::Mutex<Option<PgConnection>>,
    /// Start time of the Postgres server at the last check. `None` before the first check.
    server_start: Mutex<Option<OffsetDateTime>>,
    /// Shared with the pools, which check it when they hand out a connection.
    validity: Arc<Validity>,
    /// Requests an early check, because a call suspects that the server is gone.
    suspected: Notify,
    openings: Openings,
    timelines: UsedTimelines,
    report: Report,
    up: Gauge,
    primaries: Gauge,
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
            openings: Openings::default(),
            timelines: UsedTimelines::default(),
            report: Report::default(),
            up: Gauge::default(),
            primaries: Gauge::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "1 when the last check found the primary of Postgres, with a schema that suits \
                    this program, and calls get connections; otherwise 0";
        registry.register("tenantry_postgres_up", help, self.up.clone());
        let help = "Servers of DATABASE_URL that accept writes to this database, at the last look. \
                    More than 1: writes that one of them accepts are missing on the others";
        registry.register("tenantry_postgres_primaries", help, self.primaries.clone());
    }

    /// The server that new connections are opened to.
    pub(super) fn server(&self) -> &Server {
        &self.servers[self.current.load(Ordering::Acquire)]
    }

    /// Adds a pool. When another server becomes the primary, the pool opens its next connections to
    /// that server.
    pub(super) fn add_pool(&self, pool: PgPool, waiting: Arc<Waiting>) {
        self.openings.add_pool(pool, waiting);
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

    /// Waits for `connection`, a connection of the pool that `waiting` belongs to. Fails
    /// immediately when there is no primary, also when the primary is lost during the wait.
    ///
    /// # Errors
    /// An I/O error with the cause when there is no primary.
    pub(super) async fn wait_for_connection<T>(
        &self,
        waiting: &Waiting,
        connection: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let mut changes = self.outage.subscribe();
        let suspect_later = async {
            sleep(SUSPICIOUS_WAIT).await;
            waiting.begin();
            self.suspect();
            // This future never completes, so its branch of the `select!` is never taken.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            outage = changes.wait_for(Option::is_some) => {
                let cause = outage.ok().and_then(|outage| outage.clone()).unwrap_or_default();
                Err(io::Error::new(io::ErrorKind::NotConnected, cause.to_string()).into())
            }
            result = connection => {
                if result.is_ok() { waiting.end() } else { waiting.begin() }
                result
            }
            () = suspect_later => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Checks the server in use. If that server is unfit, looks for the primary among all servers
    /// of the URL.
    ///
    /// # Errors
    /// The cause for each server, when no server is a primary that suits this program. The cause,
    /// when the pools can't open connections.
    pub(super) async fn check(&self) -> Result<(), Arc<str>> {
        let mut connection = self.connection.lock().await;
        if self.validity.take_reached_other_server() {
            // The open connection may lead to another server than new connections.
            *connection = None;
        }
        if let Some(open_connection) = connection.as_mut() {
            match server_check::check_again(open_connection).await {
                Ok(()) => {
                    let pools_result = self.openings.check(self.server()).await;
                    self.record_up(pools_result.is_ok());
                    return pools_result;
                }
                // The server may only be slow. Then its connections stay valid.
                Err(Unfit::TimedOut) => {}
                // The other connections to this server are broken too, or lead to a standby.
                Err(_) => self.validity.invalidate(),
            }
            *connection = None;
        }
        match self.find_primary().await {
            Ok((index, checked)) => {
                self.record_primary(index, &checked);
                *connection = Some(checked.connection);
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
        if let Some(connection) = self.connection.lock().await.take() {
            // If this fails, Postgres notices the end of the connection later.
            connection.close().await.ok();
        }
    }

    /// Looks at all servers of the URL again and again, while the future is polled, because the
    /// server in use may not be the only server that accepts writes. With a single server, returns
    /// immediately.
    pub(super) async fn keep_looking_at_all_servers(&self) {
        while self.servers.len() > 1 {
            self.look_at_all_servers().await;
            sleep(PAUSE_BETWEEN_LOOKS).await;
        }
    }

    /// Moves to the primary with the highest timeline, and reports when there are several.
    async fn look_at_all_servers(&self) {
        let Some(used) = self.timelines.last() else { return };
        let writable = other_servers::writable(&self.servers, used.system_identifier).await;
        self.primaries.set(i64::try_from(writable.len()).unwrap_or(i64::MAX));
        let newest = writable.iter().max_by_key(|server| server.identity.timeline);
        let newer = newest.filter(|newest| newest.identity.is_newer_than(used));
        let refusal = match newer {
            Some(newer) => self.move_to(newer.index).await.err(),
            None => None,
        };
        self.report.log(&self.servers, &writable, refusal.as_ref());
    }

    /// Switches to a server, unless this process meanwhile uses a server with the same or a higher
    /// timeline.
    async fn move_to(&self, index: usize) -> Result<(), Unfit> {
        let checked = server_check::connect(&self.servers[index], &self.timelines).await?;
        let mut connection = self.connection.lock().await;
        let identity = checked.history.as_ref().map(|history| history.identity);
        let is_newer = identity
            .zip(self.timelines.last())
            .is_some_and(|(identity, used)| identity.is_newer_than(used));
        if is_newer {
            self.record_primary(index, &checked);
            *connection = Some(checked.connection);
        }
        Ok(())
    }

    /// Records in the gauges whether the primary is usable. With a single server, the number of
    /// primaries has the same value.
    fn record_up(&self, is_up: bool) {
        self.up.set(is_up.into());
        if self.servers.len() == 1 {
            self.primaries.set(is_up.into());
        }
    }

    /// Connects to all servers concurrently. Returns the first server that is a primary, with its
    /// index. If other servers of its cluster also answer as primaries within [`WAIT_FOR_OTHERS`],
    /// returns the primary with the highest timeline.
    async fn find_primary(&self) -> Result<(usize, CheckedServer), Arc<str>> {
        let connect = |(index, server)| async move {
            (index, server_check::connect(server, &self.timelines).await)
        };
        let mut results: FuturesUnordered<_> =
            self.servers.iter().enumerate().map(connect).collect();
        let mut causes: Vec<(usize, Unfit)> = Vec::new();
        while let Some((index, result)) = results.next().await {
            match result {
                Ok(checked) => {
                    let mut best = (index, checked);
                    let compare_others = async {
                        while let Some((index, result)) = results.next().await {
                            if let Ok(other) = result
                                && other.is_newer_than(&best.1)
                            {
                                best = (index, other);
                            }
                        }
                    };
                    timeout(WAIT_FOR_OTHERS, compare_others).await.ok();
                    return Ok(best);
                }
                Err(cause) => causes.push((index, cause)),
            }
        }
        causes.sort_by_key(|(index, _)| *index);
        let describe =
            |(index, cause): &(usize, Unfit)| format!("{}: {cause}", self.servers[*index].address);
        Err(causes.iter().map(describe).collect::<Vec<_>>().join("; ").into())
    }

    fn record_primary(&self, index: usize, checked: &CheckedServer) {
        let server = &self.servers[index];
        let server_start = checked.server_start;
        if let Some(history) = &checked.history {
            self.timelines.record(history);
        }
        let mut last_start = self.server_start.lock().unwrap_or_else(PoisonError::into_inner);
        let previous_start = last_start.replace(server_start);
        if previous_start != Some(server_start) {
            // Another server, or the same server after a restart.
            self.validity.invalidate();
        }
        if self.current.swap(index, Ordering::AcqRel) != index {
            if previous_start.is_some() {
                tracing::info!(server = server.address, "another Postgres server is the primary");
            }
            self.openings.set_server(server);
        }
        if self.outage.send_replace(None).is_some() {
            tracing::info!(server = server.address, "Postgres is available again");
        }
        self.record_up(true);
    }

    fn record_outage(&self, cause: &Arc<str>) {
        self.record_up(false);
        let last = self.outage.send_replace(Some(cause.clone()));
        if !last.is_some_and(|last| is_same_cause(&last, cause)) {
            tracing::warn!(%cause, "Postgres can't be used");
        }
    }
}

/// Whether two texts describe the same cause. Digits are ignored: for example, the error of an
/// expired certificate contains the current time.
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
