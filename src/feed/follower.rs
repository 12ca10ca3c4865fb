//! The loop that reads the change feed until the pool is closed.
//!
//! Postgres assigns ids before the commit, so a reader that continues after the last id misses
//! transactions that commit late. This reader keeps the snapshot of its last read and reads the
//! changes that have become visible since. The reader sees each committed change exactly once, in the
//! first read after the commit, even while older transactions are still open.
//!
//! Rule: `read_changes` (`migrations/0020_read_changes.sql`) decides which changes the follower
//! has not seen, and whether it may have missed some.

use std::{sync::Arc, time::Duration};

use ::time::OffsetDateTime;
use tokio::time;

use super::{Change, ChangeListener, Kind, metrics::Metrics, state::State};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    pg::Postgres,
};

/// Maximum pause between two reads.
const POLL: Duration = Duration::from_millis(250);

/// Timeout of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Follower {
    postgres: Postgres,
    listeners: Vec<Arc<dyn ChangeListener>>,
    metrics: Metrics,
    /// The last successful read; `None` before the first read.
    last_read: Option<LastRead>,
    /// Whether the server may have been replaced since the last successful read. Then `last_read`
    /// may name transactions that the server does not have.
    in_doubt: bool,
}

struct LastRead {
    snapshot: String,
    /// Start time of the Postgres server. A different time means another server, or a restart.
    server: OffsetDateTime,
}

impl Follower {
    pub(super) fn new(
        postgres: Postgres,
        listeners: Vec<Arc<dyn ChangeListener>>,
        metrics: Metrics,
    ) -> Self {
        Self { postgres, listeners, metrics, last_read: None, in_doubt: false }
    }

    pub(super) async fn run(mut self, state: Arc<State>) {
        let mut woken = true;
        while !self.postgres.is_closed() {
            let read_start = state.begin();
            let result = time::timeout(READ_TIMEOUT, self.read(&state)).await;
            // A server that stops answering may be replaced by another server.
            self.in_doubt |= result.is_err();
            match result.unwrap_or(Err(Error::Database(sqlx::Error::PoolTimedOut))) {
                Ok(changes) => {
                    self.metrics.read(changes, woken);
                    if state.end(read_start) {
                        self.metrics.lapsed();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the change feed can't be read");
                    self.in_doubt |= is_another_server(&error);
                    self.metrics.failed();
                }
            }
            woken = state.wait_for_wake_up(POLL).await;
        }
    }

    /// Applies the changes that became visible since the last read; returns their number.
    async fn read(&mut self, state: &State) -> Result<u64> {
        let rows = sqlx::query!(
            r#"
            select snapshot::text as "snapshot!", server as "server!", missed as "missed!",
                   tenant_id, kind, subject_id
            from read_changes($1::text::pg_snapshot)
            "#,
            self.last_read.as_ref().map(|last| &last.snapshot),
        )
        .fetch_all(self.postgres.pool())
        .await?;
        let Some(first) = rows.first() else {
            return Err(Error::defect("read_changes returned no row"));
        };
        let (xmin, xmax) = bounds(&first.snapshot)?;
        // Must come before any use of the data that this read returned.
        state.progress.record_snapshot(xmax);
        match &self.last_read {
            // The first read. Entries that were cached before this read may be outdated.
            None => self.clear(state),
            // A connection pooler can switch to another server without closing the connection.
            Some(last) if first.missed || self.in_doubt || last.server != first.server => {
                tracing::warn!("changes may have been missed: the in-memory caches are reset");
                self.clear(state);
            }
            Some(_) => {}
        }
        let mut changes = 0;
        for row in &rows {
            let (Some(tenant), Some(kind), Some(subject)) =
                (row.tenant_id, &row.kind, row.subject_id)
            else {
                continue;
            };
            changes += 1;
            match Kind::parse(kind) {
                Some(kind) => self.apply(&Change { tenant: TenantId(tenant), kind, subject }),
                // A newer version wrote a kind that this version does not know.
                None => self.clear(state),
            }
        }
        state.progress.set_horizon(xmin);
        self.in_doubt = false;
        self.last_read = Some(LastRead { snapshot: first.snapshot.clone(), server: first.server });
        Ok(changes)
    }

    fn apply(&self, change: &Change) {
        for listener in &self.listeners {
            listener.apply(change);
        }
    }

    fn clear(&self, state: &State) {
        state.record_reset();
        for listener in &self.listeners {
            listener.clear();
        }
    }
}

/// Returns xmin and xmax of a snapshot in text form, `xmin:xmax:xip_list`.
fn bounds(snapshot: &str) -> Result<(u64, u64)> {
    let mut parts = snapshot.split(':').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(xmin), Some(xmax)) => Ok((xmin, xmax)),
        _ => Err(Error::defect("a snapshot that can't be read")),
    }
}

/// Whether the connection was lost. A restarted server, or a server that replaced it, may assign
/// transaction ids a second time: the transactions that had these ids before were not durable.
fn is_another_server(error: &Error) -> bool {
    match error {
        Error::Database(sqlx::Error::Io(_) | sqlx::Error::Tls(_)) => true,
        // SQLSTATE 57P: shutdown, crash or start of the server. 08 and 58: connection lost, as
        // reported by poolers.
        Error::Database(sqlx::Error::Database(error)) => error
            .code()
            .is_some_and(|code| ["57P", "08", "58"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}
