//! A connection of the pool that a piece of work holds, and what becomes of it when the
//! work is given up.

use std::time::Duration;

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time;

use super::connecting;
use crate::{concurrency::shares::Permit, telemetry::Operations};

/// How long a statement may go on that nobody waits for any more. After that its
/// connection is closed, which ends the statement; see [`super::postgres`].
const GRACE: Duration = Duration::from_millis(500);

/// The pool, and what is counted of its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: PgPool,
    /// Statements that were ended, for nobody waited for them.
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
        let help = "Statements that were ended by closing their connection, for their call \
                    was over";
        registry.register("tenantry_db_statements_abandoned", help, self.abandoned.clone());
    }

    pub(super) fn connections(&self) -> &PgPool {
        &self.connections
    }

    pub(super) fn operations(&self) -> &Operations {
        &self.operations
    }
}

/// What is under way on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// Nothing: it is free for others.
    Nothing,
    /// A statement.
    Statement,
    /// A transaction, or its begin or end.
    Transaction,
}

/// A connection of the pool. Dropped, it returns there, with nothing under way.
#[derive(Debug)]
pub(super) struct Held {
    /// Present until dropped.
    connection: Option<PoolConnection<Postgres>>,
    pub(super) work: Work,
    permit: Option<Permit>,
    abandoned: Counter,
}

impl Held {
    /// A connection for a piece of work, of the share that `permit` belongs to.
    pub(super) async fn acquire(pool: &Pool, permit: Option<Permit>) -> sqlx::Result<Self> {
        let connection = Some(connecting::acquire(&pool.connections).await?);
        Ok(Self { connection, work: Work::Nothing, permit, abandoned: pool.abandoned.clone() })
    }

    pub(super) fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let (permit, work) = (self.permit.take(), self.work);
        if work != Work::Nothing {
            let abandoned = self.abandoned.clone();
            tokio::spawn(async move {
                end(connection, work, &abandoned).await;
                drop(permit);
            });
        }
    }
}

/// Ends what is under way on a connection that nobody waits for, before the pool gives it
/// to somebody else (launchbadge/sqlx#4393).
async fn end(mut connection: PoolConnection<Postgres>, work: Work, abandoned: &Counter) {
    let ended = async {
        match work {
            Work::Transaction => (&mut *connection).execute("rollback").await.map(drop),
            Work::Statement | Work::Nothing => connection.ping().await,
        }
    };
    match time::timeout(GRACE, ended).await {
        Ok(Ok(())) => {}
        ended => {
            if ended.is_err() {
                abandoned.inc();
            }
            // The connection may be broken, or the network hang.
            time::timeout(GRACE, connection.close()).await.ok();
        }
    }
}
