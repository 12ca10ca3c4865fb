//! Transactions that work in one tenant.
//!
//! Rule: `current_tenant` (`migrations/0001_roles_and_context.sql`) decides which tenant a
//! transaction works in. Row-level security compares the tenant of each row with that tenant.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor};

use super::{
    observed::{Observed, observe},
    pooled::{InProgress, Pool, PooledConnection},
};
use crate::{
    concurrency::{deadline, fair_permits::Permit},
    error::Result,
    ids::TenantId,
    telemetry::Operations,
};

/// Maximum statement timeout in a transaction.
const MAX_STATEMENT: Duration = Duration::from_secs(10);

/// Time from the call's deadline until Postgres ends a statement. At that time the gate has already
/// answered the caller.
const AFTER_DEADLINE: Duration = Duration::from_millis(100);

/// A transaction with a tenant set: row-level security shows it only that tenant's rows. On
/// drop without [`Tx::commit`] it rolls back, and a running statement is ended.
#[derive(Debug)]
pub struct Tx {
    connection: PooledConnection,
    operations: Operations,
}

impl Tx {
    /// Begins a transaction. Its statements time out with the deadline of the current call.
    pub(super) async fn begin(pool: &Pool, permit: Permit, tenant: TenantId) -> Result<Self> {
        let limit = deadline::remaining().map_or(MAX_STATEMENT, |left| left + AFTER_DEADLINE);
        let limit = limit.min(MAX_STATEMENT).as_millis();
        // The tenant is a UUID and the limit a number, so nothing needs escaping. One statement
        // saves round trips.
        let statement = format!(
            "begin; select set_config('tenantry.tenant', '{tenant}', true), \
             set_config('statement_timeout', '{limit}ms', true)"
        );
        let work = async {
            let mut connection = PooledConnection::acquire(pool, Some(permit)).await?;
            // From here on Postgres may be in a transaction, even if its answer never arrives.
            connection.work = InProgress::Transaction;
            connection.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
            Ok(connection)
        };
        let connection = observe(pool.operations(), "BEGIN", work).await?;
        Ok(Self { connection, operations: pool.operations().clone() })
    }

    /// The connection, for one statement.
    pub fn conn(&mut self) -> Observed<'_> {
        Observed::transaction(&mut self.connection, &self.operations)
    }

    /// Switches to another tenant for the rest of the transaction: for a change in two tenants,
    /// such as the creation of a tenant by platform staff.
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
    /// When Postgres is unavailable. The transaction may or may not be committed then.
    pub async fn commit(mut self) -> Result<()> {
        let commit = self.connection.connection()?.execute("COMMIT");
        observe(&self.operations, "COMMIT", commit).await?;
        self.connection.work = InProgress::Nothing;
        Ok(())
    }
}
