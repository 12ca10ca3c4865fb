//! The loop that reads the change feed until the pool is closed.
//!
//! Postgres assigns transaction ids before the commit, so a reader that continues after the last id
//! misses transactions that commit late. The follower stores the snapshot of its last read instead,
//! and reads the changes that have become visible since this snapshot. The follower reads each
//! committed change exactly once, in the first read after the commit, even while older transactions
//! are still open.
//!
//! - Rule: `read_changes` (`migrations/0035_refuse_standby.sql`) decides which changes the follower
//!   has not seen, and whether it may have missed some.
//! - Rule: `current_epoch` (`migrations/0038_epochs.sql`) shows that a restore or a failover may
//!   have lost changes that the caches contain.

use std::{mem, sync::Arc, time::Duration};

use ::time::OffsetDateTime;
use tokio::time;

use super::{
    Change, ChangeListener, Kind,
    epochs::{self, Epochs},
    metrics::Metrics,
    state::State,
};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    pg::{Postgres, is_connection_loss},
};

/// Maximum pause between two reads.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Timeout of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of timeouts after which the follower no longer tries to read the changes since its last
/// read, and resets the in-memory caches instead. The number of these changes only grows, so the
/// reads could fail for ever.
const MAX_TIMEOUTS: u32 = 2;

pub(super) struct Follower {
    postgres: Postgres,
    listeners: Vec<Arc<dyn ChangeListener>>,
    metrics: Metrics,
    /// The last successful read; `None` before the first read, and after [`MAX_TIMEOUTS`] timeouts.
    last_read: Option<LastRead>,
    /// Whether the last read failed. Only the first failure and the next success are logged.
    is_failing: bool,
    /// Whether another server may have replaced the Postgres server since the last successful read.
    /// The new server may not have all transactions of the snapshot in `last_read`.
    server_may_differ: bool,
    /// Number of reads in a row that reached [`READ_TIMEOUT`].
    timeouts: u32,
}

struct LastRead {
    snapshot: String,
    /// Start time of the Postgres server. A different time means another server, or a restart.
    server_start: OffsetDateTime,
}

impl Follower {
    pub(super) fn new(
        postgres: Postgres,
        listeners: Vec<Arc<dyn ChangeListener>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            postgres,
            listeners,
            metrics,
            last_read: None,
            is_failing: false,
            server_may_differ: false,
            timeouts: 0,
        }
    }

    pub(super) async fn run(mut self, state: Arc<State>) {
        let mut was_woken = true;
        while !self.postgres.is_closed() {
            let started_read = state.begin_read();
            let result = time::timeout(READ_TIMEOUT, self.read(&state)).await;
            // A timeout may mean a failover: another server may answer the next read.
            self.server_may_differ |= result.is_err();
            self.timeouts = if result.is_err() { self.timeouts + 1 } else { 0 };
            if self.timeouts == MAX_TIMEOUTS && self.last_read.take().is_some() {
                tracing::warn!(
                    "the changes since the last read of the feed can't be read in time: they are skipped"
                );
            }
            match result.unwrap_or_else(|_| Err(Error::query_timeout(READ_TIMEOUT))) {
                Ok(changes) => {
                    if mem::take(&mut self.is_failing) {
                        tracing::info!("the change feed is read again");
                    }
                    self.metrics.record_read(changes, was_woken);
                    if state.end_read(started_read) {
                        self.metrics.record_lapse();
                    }
                }
                Err(error) => {
                    if !mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(%error, "the change feed can't be read");
                    }
                    self.server_may_differ |= may_reach_another_server(&error);
                    self.metrics.record_failure();
                }
            }
            was_woken = state.wait_for_wake_up(POLL_INTERVAL).await;
        }
    }

    /// Applies the changes that became visible since the last read; returns their number.
    async fn read(&mut self, state: &State) -> Result<u64> {
        let server_generation = self.postgres.generation();
        let rows = sqlx::query!(
            r#"
            select snapshot::text as "snapshot!", server as "server!", missed as "missed!",
                   (select current_epoch()) as "epoch!", tenant_id, kind, subject_id
            from read_changes($1::text::pg_snapshot)
            "#,
            self.last_read.as_ref().map(|last| &last.snapshot),
        )
        .fetch_all(self.postgres.executor())
        .await?;
        // There is always a row: without changes, the row has no tenant, kind and subject.
        let Some(first_row) = rows.first() else {
            return Err(Error::defect("read_changes returned no row"));
        };
        let (xmin, xmax) = snapshot_bounds(&first_row.snapshot)?;
        // A connection pooler can switch to another server without closing the connection. Then
        // there was no error, so the start times of the servers are compared too.
        let is_other_server = self.server_may_differ
            || self.last_read.as_ref().is_some_and(|last| last.server_start != first_row.server);
        let is_first = self.last_read.is_none();
        if is_other_server || is_first {
            epochs::record_server(&self.postgres).await?;
        }
        let has_new_epoch = state.progress.epoch() != first_row.epoch.cast_unsigned();
        if has_new_epoch || is_other_server || is_first {
            state.progress.record_epochs(Epochs::read(self.postgres.executor()).await?);
        }
        if has_new_epoch && !is_first {
            tracing::warn!(
                "another server became the primary of Postgres, or the database was restored: an \
                 epoch has begun. After a failover that lost no commits, this needs no action \
                 (docs/runbook.md, \"The log says that another server became the primary\")"
            );
        }
        if is_other_server || has_new_epoch {
            state.progress.forget_position();
        }
        // The snapshot is recorded first, because a token created from cached data must not be
        // older than the data.
        state.progress.record_read(xmax, server_generation);
        if is_first {
            // This is the first read, or the changes since the last read are skipped. Entries that
            // were cached before this read may be outdated.
            self.clear(state);
        } else if first_row.missed || is_other_server || has_new_epoch {
            tracing::info!("changes may have been missed, so the in-memory caches are read anew");
            self.clear(state);
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
                // A newer version of the program wrote the change.
                None => self.clear(state),
            }
        }
        state.progress.set_horizon(xmin);
        self.server_may_differ = false;
        self.last_read =
            Some(LastRead { snapshot: first_row.snapshot.clone(), server_start: first_row.server });
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

/// Parses xmin and xmax of a snapshot in text form, `xmin:xmax:xip_list`.
fn snapshot_bounds(snapshot: &str) -> Result<(u64, u64)> {
    let mut parts = snapshot.split(':').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(xmin), Some(xmax)) => Ok((xmin, xmax)),
        _ => Err(Error::defect("the snapshot of read_changes can't be parsed")),
    }
}

/// Whether another server may answer the next read, because the connection was lost. After a
/// failover, that server may assign transaction ids again that the snapshot already contains,
/// because the transactions that had them were lost.
fn may_reach_another_server(error: &Error) -> bool {
    matches!(error, Error::Database(error) if is_connection_loss(error))
}
