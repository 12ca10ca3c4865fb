//! A pool connection in use, and its cleanup when its call is cancelled.

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time;

use super::{connecting, lost::is_connection_loss, primary::Primary, waiting::Waiting};
use crate::{concurrency::fair_permits::Permit, error::sqlstate, telemetry::Operations};

/// Grace period for a running statement whose call was cancelled. Then the connection is closed,
/// and Postgres cancels the statement (see [`super::postgres`]). Closing may take as long again.
const GRACE: Duration = Duration::from_millis(500);

/// The pool and the metrics of its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: PgPool,
    primary: Arc<Primary>,
    waiting: Arc<Waiting>,
    /// Counts statements that ran longer than [`GRACE`] after their call was cancelled.
    abandoned: Counter,
    operations: Operations,
}

impl Pool {
    pub(super) fn new(connections: PgPool, primary: Arc<Primary>) -> Self {
        let waiting = Arc::new(Waiting::new());
        primary.add_pool(connections.clone(), waiting.clone());
        let (abandoned, operations) = (Counter::default(), Operations::default());
        Self { connections, primary, waiting, abandoned, operations }
    }

    pub(super) fn with_operations(self, operations: Operations) -> Self {
        Self { operations, ..self }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Statements whose connection was closed, because they still ran 500 ms after \
                    their call was cancelled";
        registry.register("tenantry_db_statements_abandoned", help, self.abandoned.clone());
    }

    pub(super) fn connections(&self) -> &PgPool {
        &self.connections
    }

    pub(super) fn primary(&self) -> &Arc<Primary> {
        &self.primary
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

/// A pool connection in use. After the drop, a background task cleans up unfinished work (see
/// [`clean_up`]); then the connection returns to the pool.
#[derive(Debug)]
pub(super) struct PooledConnection {
    /// `Some` until drop.
    connection: Option<PoolConnection<Postgres>>,
    pub(super) work: InProgress,
    /// Whether the connection must not return to the pool.
    must_close: bool,
    permit: Option<Permit>,
    primary: Arc<Primary>,
    abandoned: Counter,
}

impl PooledConnection {
    /// Takes a connection from the pool. `permit` counts the connection in a tenant's share, and is
    /// released together with the connection.
    ///
    /// # Errors
    /// Fails immediately while there is no primary.
    pub(super) async fn acquire(pool: &Pool, permit: Option<Permit>) -> sqlx::Result<Self> {
        // Boxed, because the future of sqlx takes several KiB.
        let connection = Box::pin(connecting::acquire(&pool.connections));
        let connection = Some(pool.primary.wait_for_connection(&pool.waiting, connection).await?);
        Ok(Self {
            connection,
            work: InProgress::Nothing,
            must_close: false,
            permit,
            primary: pool.primary.clone(),
            abandoned: pool.abandoned.clone(),
        })
    }

    pub(super) fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Reacts to an error of a statement. An error of a read-only server forbids the use of this
    /// connection and of all other open connections, because they lead to the same server. After a
    /// lost connection, the server is checked.
    pub(super) fn handle_error(&mut self, error: &sqlx::Error) {
        self.must_close |= is_read_only(error);
        handle_error(&self.primary, error);
    }

    /// Reacts to an error like [`Self::handle_error`], while a stream of rows uses the connection.
    pub(super) fn error_handler(&self) -> impl Fn(&sqlx::Error) + Send + use<> {
        let primary = self.primary.clone();
        move |error| handle_error(&primary, error)
    }

    /// Closes this connection after its use, and forbids the use of all other connections that are
    /// open now.
    pub(super) fn forbid_use(&mut self) {
        self.must_close = true;
        self.primary.invalidate_connections();
    }
}

fn handle_error(primary: &Primary, error: &sqlx::Error) {
    if is_read_only(error) {
        primary.invalidate_connections();
    } else if is_connection_loss(error) {
        primary.suspect();
    }
}

/// Whether Postgres refused a write because the server is read-only (SQLSTATE 25006). A standby
/// refuses writes, and so does a primary with `default_transaction_read_only`.
fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (work, must_close) = (self.work, self.must_close);
        // Unfinished work keeps the tenant's permit until the cleanup has ended. Otherwise the
        // permit is released now.
        let permit = self.permit.take().filter(|_| work != InProgress::Nothing);
        let abandoned = self.abandoned.clone();
        tokio::spawn(async move {
            if must_close || !clean_up(&mut connection, work, &abandoned).await {
                // The connection may be broken, or the network may hang.
                time::timeout(GRACE, connection.close()).await.ok();
            } else {
                // Before the pool takes the connection back, it pings the server without a timeout.
                // If the ping exceeds this timeout, the connection is dropped, and the pool may
                // open another connection.
                time::timeout(GRACE, connection.return_to_pool()).await.ok();
            }
            drop(permit);
        });
    }
}

/// Rolls back an open transaction, or waits for a running statement: Postgres answers a ping after
/// the statement. Returns false if this fails or takes longer than [`GRACE`]. Without the cleanup,
/// the connection would return to the pool with unfinished work (launchbadge/sqlx#4393).
async fn clean_up(
    connection: &mut PoolConnection<Postgres>,
    work: InProgress,
    abandoned: &Counter,
) -> bool {
    let cleanup = async {
        match work {
            InProgress::Transaction => (&mut **connection).execute("rollback").await.map(drop),
            InProgress::Statement => connection.ping().await,
            InProgress::Nothing => Ok(()),
        }
    };
    let result = time::timeout(GRACE, cleanup).await;
    if result.is_err() {
        abandoned.inc();
    }
    matches!(result, Ok(Ok(())))
}
