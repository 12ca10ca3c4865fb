//! Counts the statements that Postgres received, with `pg_stat_statements`.

use sqlx::{AssertSqlSafe, Connection, Row};
use tenantry::{dev::Services, pg};

use super::stores::{execute_all, owner_url};

/// Configures Postgres to count statements from the next start on.
///
/// # Errors
/// Returns an error when Postgres is unavailable.
pub async fn enable_counting_at_next_start(stores: &Services) -> anyhow::Result<()> {
    let preload = "alter system set shared_preload_libraries = 'pg_stat_statements'";
    let create_extension = "create extension if not exists pg_stat_statements";
    execute_all(stores, &[preload, create_extension].map(str::to_owned)).await
}

/// Number of statements that the service's role has sent to a database so far. Excludes the
/// statements of background work: reads and trims of the feed, and the health check of Postgres.
///
/// # Errors
/// Returns an error when Postgres is unavailable or does not count statements.
pub async fn count(stores: &Services, database: &str) -> anyhow::Result<u64> {
    let mut connection = pg::connect_owner(&owner_url(stores, "postgres")).await?;
    let sql = format!(
        "select coalesce(sum(calls), 0)::bigint
         from pg_stat_statements s
         join pg_database d on d.oid = s.dbid
         where d.datname = '{database}' and s.userid = 'tenantry_app'::regrole
           and s.query !~ 'from read_changes\\(|select trim_changes\\(|tenants_to_purge\\(|trim_rows\\(|estimated_rows\\(|schema_version\\(|current_setting\\(\\$1\\)::boolean'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
}
