//! Deletes rows that ended long ago. A row has ended when it expired, was revoked, or is not used
//! any more (the SQL function `trim_rows` decides). One worker makes a pass through each table in
//! small transactions. One replica at a time deletes.
//!
//! `audit/retention` deletes audit events, because they need a signed checkpoint. A second worker
//! runs its passes: when a retention is set for the first time, a pass may take hours.
//!
//! The rows of deleted tenants are deleted by `tenants/purge`, and old changes by `feed/trim.rs`.
//! docs/data.md has the bound of every table.

mod list;
mod metrics;
mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use tokio::time;

use self::{
    list::{Method, TrimmedTable},
    metrics::Metrics,
};
use crate::{
    audit::Trails, clock, concurrency::step::bounded, config::Retention, db::Db, error::Result,
};

/// Time between two passes through all tables.
const INTERVAL: Duration = Duration::from_mins(10);

/// Pause before the next attempt while another replica deletes.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Number of blocks of a table that one transaction reads: 512 KiB with blocks of 8 KiB.
const BLOCKS: i64 = 64;

/// Maximum number of idempotency records that one transaction deletes.
const BATCH: i64 = 1000;

/// The table of the audit events, as a label of the metrics.
const AUDIT_EVENTS: &str = "audit_events";

struct Worker {
    db: Db,
    trims: Vec<TrimmedTable>,
    trails: Trails,
    metrics: Metrics,
}

/// The part of the data that one worker trims.
#[derive(Clone, Copy)]
enum Part {
    /// The tables of [`list::trims`].
    EndedRows,
    AuditEvents,
}

impl Part {
    /// The name in the log.
    fn name(self) -> &'static str {
        match self {
            Self::EndedRows => "ended rows",
            Self::AuditEvents => "audit events",
        }
    }
}

/// Where a pass through a table continues.
enum Next {
    /// At this block.
    Block(i64),
    /// The pass is complete.
    Complete,
    /// At the same block, because another replica is deleting.
    Retry,
}

/// Starts the workers. They stop when the database's connections are closed.
pub fn start(db: &Db, retention: &Retention, trails: Trails, registry: &mut Registry) {
    let trims = list::trims(retention);
    let tables = trims.iter().map(|trim| trim.table).chain([AUDIT_EVENTS]);
    let metrics = Metrics::register(registry, tables);
    let worker = Arc::new(Worker { db: db.clone(), trims, trails, metrics });
    tokio::spawn(worker.clone().run(Part::EndedRows));
    tokio::spawn(worker.run(Part::AuditEvents));
}

impl Worker {
    async fn run(self: Arc<Self>, part: Part) {
        let (mut has_failed, part_name) = (false, part.name());
        while !self.db.is_closed() {
            let result = match part {
                Part::EndedRows => self.pass_all().await,
                Part::AuditEvents => self.pass_trails().await,
            };
            match result {
                Ok(()) if has_failed => {
                    tracing::info!("the trim of {part_name} works again");
                    has_failed = false;
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "{part_name} can't be deleted; the trim is retried");
                    has_failed = true;
                }
            }
            time::sleep(INTERVAL).await;
        }
    }

    /// Makes a pass through each table. A failure in one table does not delay the other tables.
    /// Returns the last failure.
    async fn pass_all(&self) -> Result<()> {
        let mut result = Ok(());
        for trim in &self.trims {
            let started_at = clock::now();
            match self.pass(trim).await {
                Ok(()) => self.metrics.record_pass(trim.table, started_at),
                Err(error) => result = Err(error),
            }
        }
        match bounded(store::estimated_rows(&self.db)).await {
            Ok(tables) => self.metrics.record_rows(tables),
            Err(error) => result = Err(error),
        }
        result
    }

    /// Makes a pass through all audit trails.
    async fn pass_trails(&self) -> Result<()> {
        let started_at = clock::now();
        self.trails.run_pass(|deleted| self.record_deleted(AUDIT_EVENTS, deleted)).await?;
        self.metrics.record_pass(AUDIT_EVENTS, started_at);
        Ok(())
    }

    /// Deletes the ended rows of a table. After each transaction, pauses as long as it took, so
    /// that calls get at least half of the time of Postgres.
    async fn pass(&self, trim: &TrimmedTable) -> Result<()> {
        let mut block = 0;
        loop {
            let started_at = Instant::now();
            match bounded(self.step(trim, block)).await? {
                Next::Block(next) => block = next,
                Next::Complete => return Ok(()),
                Next::Retry => time::sleep(LOCK_PAUSE).await,
            }
            time::sleep(started_at.elapsed()).await;
        }
    }

    /// Runs one transaction of a pass.
    async fn step(&self, trim: &TrimmedTable, block: i64) -> Result<Next> {
        let (deleted, next) = match trim.method {
            Method::Blocks => {
                let step = store::trim_rows(&self.db, trim, block, BLOCKS).await?;
                let Some((deleted, total_blocks)) = step else { return Ok(Next::Retry) };
                let next_block = block + BLOCKS;
                let is_complete = next_block >= total_blocks;
                (deleted, if is_complete { Next::Complete } else { Next::Block(next_block) })
            }
            Method::Requests => {
                let step = store::trim_requests(&self.db, trim, BATCH).await?;
                let Some(deleted) = step else { return Ok(Next::Retry) };
                // The block number has no meaning for this method: the next step reads the index.
                (deleted, if deleted < BATCH { Next::Complete } else { Next::Block(0) })
            }
        };
        self.record_deleted(trim.table, deleted);
        Ok(next)
    }

    fn record_deleted(&self, table: &'static str, deleted: i64) {
        self.metrics.record_deleted(table, deleted);
        if deleted > 0 {
            tracing::debug!(table, deleted, "ended rows were deleted");
        }
    }
}
