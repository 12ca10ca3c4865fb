//! Reads the feed, for as long as the process lives.
//!
//! Ids are handed out before commit, so a reader that remembers the last id loses
//! whatever commits late. This one remembers the snapshot that it read in, and
//! reads what has become visible since: every commit exactly once, by the first
//! read after it, whatever older transactions are still under way.
//!
//! Rule: `read_changes` (`migrations/0020_read_changes.sql`) decides which changes the follower
//! has not seen, and whether it may have missed some.

use std::{sync::Arc, time::Duration};

use ::time::OffsetDateTime;
use tokio::time;

use super::{Change, Follow, Kind, metrics::Metrics, state::State};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    pg::Postgres,
};

/// The longest pause between reads.
const POLL: Duration = Duration::from_millis(250);

/// How long a read may take before it counts as failed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Follower {
    postgres: Postgres,
    followers: Vec<Arc<dyn Follow>>,
    metrics: Metrics,
    /// What the last good read saw.
    seen: Option<Seen>,
    /// Whether what was seen may not be the server's past any more.
    in_doubt: bool,
}

struct Seen {
    snapshot: String,
    /// Which server it was, by when it started.
    server: OffsetDateTime,
}

impl Follower {
    pub(super) fn new(
        postgres: Postgres,
        followers: Vec<Arc<dyn Follow>>,
        metrics: Metrics,
    ) -> Self {
        Self { postgres, followers, metrics, seen: None, in_doubt: false }
    }

    pub(super) async fn run(mut self, state: Arc<State>) {
        let mut woken = true;
        while !self.postgres.is_closed() {
            let began = state.begin();
            let read = time::timeout(READ_TIMEOUT, self.read(&state)).await;
            // A server that falls silent may be one whose place another takes.
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
            woken = state.rest(POLL).await;
        }
    }

    /// Passes on what has become visible since the last read; says how many
    /// changes that were.
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
        // Before anything that depends on it.
        state.progress.saw(xmax);
        match &self.seen {
            // What was looked up before there was a snapshot to go on from may have
            // changed between the two.
            None => self.clear(state),
            // A pooler may pass on to another server without a connection lost.
            Some(seen) if first.missed || self.in_doubt || seen.server != first.server => {
                tracing::warn!("changes may have been missed: memory starts anew");
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
                // A newer version writes it.
                None => self.clear(state),
            }
        }
        state.progress.passed_on(xmin);
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
        state.start_anew();
        for follower in &self.followers {
            follower.clear();
        }
    }
}

/// The xmin and the xmax of a snapshot's text: `xmin:xmax:others`.
fn bounds(snapshot: &str) -> Result<(u64, u64)> {
    let mut parts = snapshot.split(':').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(xmin), Some(xmax)) => Ok((xmin, xmax)),
        _ => Err(Error::defect("a snapshot that can't be read")),
    }
}

/// Whether the connection was lost: a server that crashed, or another in its
/// place, may hand out again the ids of transactions that were not durable.
fn is_another_server(error: &Error) -> bool {
    match error {
        Error::Database(sqlx::Error::Io(_) | sqlx::Error::Tls(_)) => true,
        // SQLSTATE 57P: shut down, crashed, starting; 08 and 58: lost, as poolers say it.
        Error::Database(sqlx::Error::Database(error)) => error
            .code()
            .is_some_and(|code| ["57P", "08", "58"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}
