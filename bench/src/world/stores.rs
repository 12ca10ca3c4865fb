//! The benchmark's private Postgres and Redis.

use std::{path::Path, thread};

use anyhow::anyhow;
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, Row};
use tenantry::{
    dev::{Options, Services},
    pg,
};

use crate::cores::pin;

/// Niceness of the stores. The value matters only when the stores share a core with the load
/// generator: a load generator that waits for the core would distort the latencies.
const NICENESS: i32 = 10;

/// Starts Postgres and Redis on these cores. `None` means all cores.
///
/// # Errors
/// Returns an error when a store is not installed or does not start.
pub fn start(dir: &Path, cores: Option<&[usize]>) -> anyhow::Result<Services> {
    // Affinity and niceness belong to a thread, and child processes of the thread inherit both.
    let start_services = || {
        if let Some(cores) = cores {
            pin(cores)?;
            rustix::process::setpriority_process(None, NICENESS)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Services::start(dir, Options { durable: false }))
    };
    thread::scope(|scope| {
        scope
            .spawn(start_services)
            .join()
            .map_err(|_| anyhow!("the start of the stores panicked"))?
    })
}

/// The URL of a database as the superuser, who owns the schema.
pub fn owner_url(stores: &Services, database: &str) -> SecretString {
    stores.postgres_url("postgres", database).into()
}

/// Whether this database exists.
///
/// # Errors
/// Returns an error when Postgres is unavailable.
pub async fn database_exists(stores: &Services, database: &str) -> anyhow::Result<bool> {
    let mut connection = pg::connect_owner(&owner_url(stores, "postgres")).await?;
    let sql = format!("select exists (select from pg_database where datname = '{database}')");
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(row.try_get(0)?)
}

/// Executes statements as the superuser, each in its own transaction.
///
/// # Errors
/// Returns an error when a statement fails.
pub async fn execute_all(stores: &Services, statements: &[String]) -> anyhow::Result<()> {
    let mut connection = pg::connect_owner(&owner_url(stores, "postgres")).await?;
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}
