//! Transactions that work in one tenant.
//!
//! Rule: `current_tenant` (`migrations/0035_refuse_standby.sql`) decides which tenant a
//! transaction works in. Row-level security compares the tenant of each row with that tenant.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, Row};

use super::{
    instrumented_executor::{InstrumentedExecutor, observe},
    pooled::{InProgress, Pool, PooledConnection},
    server_check::read_only_server,
};
use crate::{
    concurrency::{deadline, fair_permits::Permit},
    error::Result,
    ids::TenantId,
    telemetry::Operations,
};

/// Maximum statement timeout in a transaction.
const MAX_STATEMENT: Duration = Duration::from_secs(10);

/// Time from the call's deadline until Postgres cancels a running statement. The gate responds to
/// the client at the deadline, so before Postgres cancels the statement.
const AFTER_DEADLINE: Duration = Duration::from_millis(100);

/// A transaction in which one tenant is selected: row-level security shows only the rows of this
/// tenant. A transaction that is dropped without [`Tx::commit`] is rolled back, and its running
/// statement is cancelled.
#[derive(Debug)]
pub struct Tx {
    connection: PooledConnection,
    operations: Operations,
}

impl Tx {
    /// Begins a transaction. Its statements time out at the deadline of the current call.
    ///
    /// The reply to `BEGIN` says whether the transaction is read-only, as on a standby. Then the
    /// transaction fails, because its reads may be outdated.
    pub(super) async fn begin(pool: &Pool, permit: Permit, tenant: TenantId) -> Result<Self> {
        let timeout = deadline::remaining().map_or(MAX_STATEMENT, |left| left + AFTER_DEADLINE);
        let timeout_ms = timeout.min(MAX_STATEMENT).as_millis();
        // The tenant is a UUID and the timeout is a number, so nothing needs escaping. Sending both
        // statements in one message saves a round trip.
        let statement = format!(
            "begin; select set_config('tenantry.tenant', '{tenant}', true), \
             set_config('statement_timeout', '{timeout_ms}ms', true), \
             current_setting('transaction_read_only') as read_only"
        );
        let begin = async {
            let mut connection = PooledConnection::acquire(pool, Some(permit)).await?;
            // From here on Postgres may be in a transaction, even if its response never arrives.
            connection.work = InProgress::Transaction;
            let query = sqlx::raw_sql(AssertSqlSafe(statement));
            let rows = connection.connection()?.fetch_all(query).await;
            let rows = rows.inspect_err(|error| connection.handle_error(error))?;
            let read_only = rows.first().map(|row| row.try_get("read_only")).transpose()?;
            if read_only != Some("off") {
                connection.forbid_use();
                return Err(read_only_server());
            }
            Ok(connection)
        };
        let connection = observe(pool.operations(), "BEGIN", begin).await?;
        Ok(Self { connection, operations: pool.operations().clone() })
    }

    /// An executor for one statement on this transaction's connection, with metrics and traces.
    pub fn conn(&mut self) -> InstrumentedExecutor<'_> {
        InstrumentedExecutor::transaction(&mut self.connection, &self.operations)
    }

    /// Switches to another tenant for the rest of the transaction: for a change in two tenants,
    /// such as the creation of a tenant by a platform administrator.
    ///
    /// # Errors
    /// When Postgres is unavailable.
    pub async fn switch_tenant(&mut self, tenant: TenantId) -> Result<()> {
        sqlx::query!("select set_config('tenantry.tenant', $1, true)", tenant.to_string())
            .fetch_one(self.conn())
            .await?;
        Ok(())
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// When Postgres is unavailable. It is then unknown whether the transaction was committed.
    pub async fn commit(mut self) -> Result<()> {
        let commit = self.connection.connection()?.execute("COMMIT");
        let result = observe(&self.operations, "COMMIT", commit).await;
        result.inspect_err(|error| self.connection.handle_error(error))?;
        self.connection.work = InProgress::Nothing;
        Ok(())
    }
}
