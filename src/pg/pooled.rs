//! A pool connection in use, and its cleanup when the work is cancelled.

use std::time::Duration;

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time;

use super::connecting;
use crate::{concurrency::fair_permits::Permit, telemetry::Operations};

/// Grace period for a statement whose call was cancelled, and then for closing its connection.
/// After the grace period the connection is closed, which ends the statement; see
/// [`super::postgres`].
const GRACE: Duration = Duration::from_millis(500);

/// The pool and the metrics of its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: PgPool,
    /// Counts statements that ran past [`GRACE`] and were ended by closing their connection.
    abandoned: Counter,
    operations: Operations,
}

impl Pool {
    pub(super) fn new(connections: PgPool) -> Self {
        let (abandoned, operations) = (Counter::default(), Operations::default());
        Self { connections, abandoned, operations }
    }

    pub(super) fn with_operations(self, operations: Operations) -> Self {
        Self { operations, ..self }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Statements ended by closing their connection, because their call had \
                    ended";
        registry.register("tenantry_db_statements_abandoned", help, self.abandoned.clone());
    }

    pub(super) fn connections(&self) -> &PgPool {
        &self.connections
    }

    pub(super) fn operations(&self) -> &Operations {
        &self.operations
    }
}

/// The work in progress on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InProgress {
    /// No work: the connection can return to the pool.
    Nothing,
    /// A single statement outside of a transaction.
    Statement,
    /// A transaction, including its `BEGIN` and `COMMIT`.
    Transaction,
}

/// A pool connection in use. On drop, unfinished work is ended first; then the connection
/// returns to the pool.
#[derive(Debug)]
pub(super) struct PooledConnection {
    /// `Some` until drop.
    connection: Option<PoolConnection<Postgres>>,
    pub(super) work: InProgress,
    permit: Option<Permit>,
    abandoned: Counter,
}

impl PooledConnection {
    /// Takes a connection from the pool. `permit` is a permit of a tenant's share. The permit is
    /// released with the connection.
    pub(super) async fn acquire(pool: &Pool, permit: Option<Permit>) -> sqlx::Result<Self> {
        let connection = Some(connecting::acquire(&pool.connections).await?);
        Ok(Self {
            connection,
            work: InProgress::Nothing,
            permit,
            abandoned: pool.abandoned.clone(),
        })
    }

    pub(super) fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let (permit, work) = (self.permit.take(), self.work);
        if work != InProgress::Nothing {
            let abandoned = self.abandoned.clone();
            tokio::spawn(async move {
                end(connection, work, &abandoned).await;
                drop(permit);
            });
        }
    }
}

/// Ends unfinished work on a connection before the connection returns to the pool
/// (launchbadge/sqlx#4393).
async fn end(mut connection: PoolConnection<Postgres>, work: InProgress, abandoned: &Counter) {
    let cleanup = async {
        match work {
            InProgress::Transaction => (&mut *connection).execute("rollback").await.map(drop),
            InProgress::Statement | InProgress::Nothing => connection.ping().await,
        }
    };
    match time::timeout(GRACE, cleanup).await {
        Ok(Ok(())) => {}
        result => {
            if result.is_err() {
                abandoned.inc();
            }
            // The connection may be broken, or the network may hang.
            time::timeout(GRACE, connection.close()).await.ok();
        }
    }
}
