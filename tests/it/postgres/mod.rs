//! Row-level security, tested directly against the migrated database.

mod catalog;
pub mod dump;
mod frozen;
mod functions;
mod isolation;
mod locks;
mod overlap;
mod plans;
mod pooled;
mod poolers;
mod privileges;
mod roles;
mod schema_version;

use sqlx::{AssertSqlSafe, PgConnection};

/// All tables with rows of tenants.
async fn tenant_tables(owner_connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "select relname::text from pg_class
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
           and relname not in ('_sqlx_migrations', 'change_marks', 'epochs') order by 1",
    )
    .fetch_all(owner_connection)
    .await
    .expect("tables")
}

/// Runs a statement. Returns the number of changed rows, or the SQLSTATE of the error.
async fn run(conn: &mut PgConnection, statement: String) -> Result<u64, String> {
    let result = sqlx::query(AssertSqlSafe(statement)).execute(conn).await;
    result.map(|done| done.rows_affected()).map_err(|error| sqlstate(&error))
}

/// The result of a counting query.
async fn count(conn: &mut PgConnection, query: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(conn).await.expect("a count")
}

fn sqlstate(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.expect("an error of Postgres").into_owned()
}

/// Sets the tenant for the whole session, which the service never does.
async fn set_session_tenant(conn: &mut PgConnection, tenant: &str) {
    sqlx::query("select set_config('tenantry.tenant', $1, false)")
        .bind(tenant)
        .execute(conn)
        .await
        .expect("the tenant is set");
}
