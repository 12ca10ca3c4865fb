//! A transaction that works in one tenant.
//!
//! Rule: `current_tenant` (`migrations/0001_roles_and_context.sql`) decides which tenant a
//! transaction works in. Row-level security compares each row with it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor};

use super::{
    held::{Held, Pool, Work},
    observed::{Observed, observe},
};
use crate::{deadline, error::Result, ids::TenantId, shares::Permit, telemetry::Operations};

/// The longest that a statement of a transaction may take.
const LONGEST_STATEMENT: Duration = Duration::from_secs(10);

/// How long after its call's deadline Postgres ends a statement: by then the caller has
/// the gate's own answer.
const AFTER_DEADLINE: Duration = Duration::from_millis(100);

/// A transaction whose tenant is set: row-level security shows it that
/// tenant's rows alone. Dropped without [`Tx::commit`], it rolls back; a statement
/// that is under way then is ended.
#[derive(Debug)]
pub struct Tx {
    held: Held,
    operations: Operations,
}

impl Tx {
    /// Begins one. Its statements end with the current call's deadline.
    pub(super) async fn begin(pool: &Pool, permit: Permit, tenant: TenantId) -> Result<Self> {
        let limit = deadline::remaining().map_or(LONGEST_STATEMENT, |left| left + AFTER_DEADLINE);
        let limit = limit.min(LONGEST_STATEMENT).as_millis();
        // A UUID's own text and a number: nothing to escape, and one round trip for all.
        let statement = format!(
            "begin; select set_config('tenantry.tenant', '{tenant}', true), \
             set_config('statement_timeout', '{limit}ms', true)"
        );
        let begun = async {
            let mut held = Held::acquire(pool, Some(permit)).await?;
            // From here on Postgres may be in a transaction, whatever is heard of it.
            held.work = Work::Transaction;
            held.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
            Ok(held)
        };
        let held = observe(pool.operations(), "BEGIN", begun).await?;
        Ok(Self { held, operations: pool.operations().clone() })
    }

    /// The connection, for a statement.
    pub fn conn(&mut self) -> Observed<'_> {
        Observed::transaction(&mut self.held, &self.operations)
    }

    /// Works in another tenant from here on: for what belongs to two, like a
    /// tenant that the platform's staff creates.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn enter(&mut self, tenant: TenantId) -> Result<()> {
        sqlx::query!("select set_config('tenantry.tenant', $1, true)", tenant.to_string())
            .fetch_one(self.conn())
            .await?;
        Ok(())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit(mut self) -> Result<()> {
        let commit = self.held.connection()?.execute("COMMIT");
        observe(&self.operations, "COMMIT", commit).await?;
        self.held.work = Work::Nothing;
        Ok(())
    }
}
