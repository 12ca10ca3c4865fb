//! How often a server has asked Postgres, as Postgres counts.

use sqlx::{AssertSqlSafe, Connection, Row};
use tenantry::{dev::Services, pg};

use super::services::{administer, owner_url};

/// Has the next start of Postgres count statements.
///
/// # Errors
/// When Postgres is away.
pub async fn count_from_next_start(services: &Services) -> anyhow::Result<()> {
    let load = "alter system set shared_preload_libraries = 'pg_stat_statements'";
    let see = "create extension if not exists pg_stat_statements";
    administer(services, &[load, see].map(str::to_owned)).await
}

/// The statements that the service's role has sent to a database so far, but for
/// those that it sends without a call: reading and trimming the feed, and asking
/// whether Postgres is there.
///
/// # Errors
/// When Postgres is away, or did not count.
pub async fn asked(services: &Services, database: &str) -> anyhow::Result<u64> {
    let mut connection = pg::connect_owner(&owner_url(services, "postgres")).await?;
    let sql = format!(
        "select coalesce(sum(calls), 0)::bigint
         from pg_stat_statements s
         join pg_database d on d.oid = s.dbid
         where d.datname = '{database}' and s.userid = 'tenantry_app'::regrole
           and s.query !~ 'from read_changes\\(|select trim_changes\\(|as \"up!\"'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
}
