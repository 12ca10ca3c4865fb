//! A schema that is older or newer than the program.

use sqlx::AssertSqlSafe;
use tenantry::pg;

use crate::{
    commands::run,
    harness::{Cluster, TestApp, wait_until},
};

/// The number of the newest migration that this program knows.
async fn newest_migration(database: &str) -> i64 {
    let mut owner_connection = Cluster::get().connect_owner(database).await;
    let migrations = pg::migrations(&mut owner_connection).await.expect("migrations");
    migrations.last().expect("a migration").number
}

async fn execute(database: &str, statement: String) {
    let mut owner_connection = Cluster::get().connect_owner(database).await;
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    statement.execute(&mut owner_connection).await.expect("executed");
}

/// Records a migration of a newer program as applied.
async fn apply_newer_migration(database: &str) {
    let statement = "insert into _sqlx_migrations
        (version, description, success, checksum, execution_time)
        values (9999, 'of a newer program', true, '', 0)";
    execute(database, statement.to_owned()).await;
}

/// Makes the schema refuse programs that do not know a migration.
async fn require_program(database: &str, oldest_known: i64) {
    let statement = format!(
        "create or replace function schema_version(out applied bigint[], out oldest_known bigint)
             language plpgsql stable security definer
             set search_path = pg_catalog, public, pg_temp
         as $$ begin
             select array_agg(version), {oldest_known} into applied, oldest_known
             from _sqlx_migrations;
         end $$"
    );
    execute(database, statement).await;
}

/// N30: the error names the missing migration and the command that applies it.
#[tokio::test]
async fn a_server_does_not_start_when_a_migration_is_missing() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let number = newest_migration(&database).await;
    let delete = format!("delete from _sqlx_migrations where version = {number}");
    execute(&database, delete).await;
    let error = TestApp::start_error(&database, cluster.app_url(&database)).await;
    assert!(error.contains(&number.to_string()) && error.contains("tenantry migrate"), "{error}");

    let owner_url = cluster.owner_url(&database);
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str())];
    let status = run(&["migrate", "--status"], &settings).await;
    assert!(!status.ok && status.out.contains("missing"), "{status:?}");

    execute(&database, "drop function schema_version()".to_owned()).await;
    let error = TestApp::start_error(&database, cluster.app_url(&database)).await;
    assert!(error.contains("tenantry migrate"), "a schema of 0.1.0: {error}");
}

/// N30: a program works with a newer schema that supports it, and `migrate` changes nothing there.
/// When the schema stops supporting the program, the server is not ready.
#[tokio::test]
async fn a_server_works_with_a_newer_schema_until_the_schema_needs_a_newer_program() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    apply_newer_migration(&database).await;
    let app = TestApp::on_database(&database, |_| {}).await;
    wait_until(10, || app.is_serving()).await;
    app.create_tenant("acme").await;

    let owner_url = cluster.owner_url(&database);
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str())];
    let output = run(&["migrate"], &settings).await;
    assert!(output.ok && output.out.contains("newer than this program"), "{output:?}");
    let status = run(&["migrate", "--status"], &settings).await;
    assert!(status.ok && status.out.contains("9999"), "{status:?}");

    require_program(&database, 9999).await;
    wait_until(10, || async { !app.is_serving().await }).await;
    let error = TestApp::start_error(&database, cluster.app_url(&database)).await;
    assert!(error.contains("9999") && error.contains("upgrade"), "{error}");
    // This program knows migration 27.
    require_program(&database, 27).await;
    wait_until(10, || app.is_serving()).await;
}
