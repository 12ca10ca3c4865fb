//! The loop that reads the change feed, for as long as the process lives.
//!
//! Postgres assigns ids before the commit, so a reader that continues after the last id misses
//! transactions that commit late. This reader keeps the snapshot of its last read and reads the
//! changes that have become visible since. It sees each committed change exactly once, in the
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
    followers: Vec<Arc<dyn ChangeListener>>,
    metrics: Metrics,
    /// The snapshot of the last successful read; `None` before the first.
    seen: Option<Seen>,
    /// Whether the server may have been replaced since the last successful read. Then `seen`
    /// may name transactions that the server does not have.
    in_doubt: bool,
}

struct Seen {
    snapshot: String,
    /// Start time of the Postgres server. Another time means another server, or a restart.
    server: OffsetDateTime,
}

impl Follower {
    pub(super) fn new(
        postgres: Postgres,
        followers: Vec<Arc<dyn ChangeListener>>,
        metrics: Metrics,
    ) -> Self {
        Self { postgres, followers, metrics, seen: None, in_doubt: false }
    }

    pub(super) async fn run(mut self, state: Arc<State>) {
        let mut woken = true;
        while !self.postgres.is_closed() {
            let began = state.begin();
            let read = time::timeout(READ_TIMEOUT, self.read(&state)).await;
            // A server that stops answering may be replaced by another.
            self.in_doubt |= read.is_err();
            match read.unwrap_or(Err(Error::Database(sqlx::Error::PoolTimedOut))) {
                Ok(changes) => {
                    self.metrics.read(changes, woken);
                    if state.end(began) {
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
            self.seen.as_ref().map(|seen| &seen.snapshot),
        )
        .fetch_all(self.postgres.pool())
        .await?;
        let Some(first) = rows.first() else {
            return Err(Error::defect("read_changes returned no row"));
        };
        let (xmin, xmax) = bounds(&first.snapshot)?;
        // Before anything depends on what this read returned.
        state.progress.record_snapshot(xmax);
        match &self.seen {
            // The first read. Entries that were cached before it may have changed in between.
            None => self.clear(state),
            // A connection pooler can switch to another server without closing the connection.
            Some(seen) if first.missed || self.in_doubt || seen.server != first.server => {
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
        self.seen = Some(Seen { snapshot: first.snapshot.clone(), server: first.server });
        Ok(changes)
    }

    fn apply(&self, change: &Change) {
        for follower in &self.followers {
            follower.apply(change);
        }
    }

    fn clear(&self, state: &State) {
        state.record_reset();
        for follower in &self.followers {
            follower.clear();
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

/// Whether the connection was lost. A server that crashed, or one that took its place, may
/// assign transaction ids again that belonged to transactions which were not durable.
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
