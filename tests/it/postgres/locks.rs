//! Which locks the migrations after the last release take. A migration runs while the previous
//! release serves, so its rules are in migrations/README.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use sqlx::{AssertSqlSafe, PgConnection};

use super::frozen::{migrations_dir, released_checksums};
use crate::harness::Cluster;

/// Tables that a migration reads while it locks them: the name of the migration, and the table.
/// Each is small, or the migration says what an operator does on a large database.
const READ_UNDER_LOCK: [(&str, &str); 3] = [
    ("0028_delete_tenants.sql", "tenants"),
    ("0036_audit_backlog_ages.sql", "audit_outbox"),
    ("0037_audit_lookup_indexes.sql", "audit_events"),
];

/// Query for the tables that the current transaction has locked against writes.
const LOCKED_TABLES: &str = "
    select distinct c.relname::text
    from pg_locks l join pg_class c on c.oid = l.relation
    where l.pid = pg_backend_pid() and c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
      and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// Query for how often each table was read completely. Earlier transactions may be included.
const TABLE_SCANS: &str = "select relname::text, seq_scan from pg_stat_xact_user_tables";

/// Query for the number of the file that has the rows of each table. A table that is rewritten gets
/// another number.
const TABLE_FILES: &str = "
    select relname::text, pg_relation_filenode(oid)::bigint from pg_class
    where relkind = 'r' and relnamespace = 'public'::regnamespace";

/// The transactions of a migration.
fn transactions(migration: &str) -> Vec<String> {
    if !migration.starts_with("-- no-transaction\n") {
        return vec![migration.to_owned()];
    }
    let mut transactions = Vec::new();
    for block in migration.split("\nbegin;\n").skip(1) {
        let (statements, rest) = block.split_once("\ncommit;").expect("the end of a block");
        assert!(
            rest.lines().all(|line| line.is_empty() || line.starts_with("--")),
            "a statement outside of a block: {rest}"
        );
        transactions.push(statements.to_owned());
    }
    transactions
}

async fn locked_tables(connection: &mut PgConnection) -> BTreeSet<String> {
    let names: Vec<String> =
        sqlx::query_scalar(LOCKED_TABLES).fetch_all(connection).await.expect("names of tables");
    names.into_iter().collect()
}

/// Runs a query that returns a number for each table.
async fn numbers(connection: &mut PgConnection, query: &'static str) -> BTreeMap<String, i64> {
    let numbers: Vec<(String, i64)> =
        sqlx::query_as(query).fetch_all(connection).await.expect("numbers of the tables");
    numbers.into_iter().collect()
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.expect(sql);
}

/// Applies one transaction of a migration, and returns the rules that it violates.
async fn faults(connection: &mut PgConnection, name: &str, statements: &str) -> Vec<String> {
    execute(connection, "begin").await;
    let files_before = numbers(connection, TABLE_FILES).await;
    let scans_before = numbers(connection, TABLE_SCANS).await;
    execute(connection, statements).await;
    let mut locked = locked_tables(connection).await;
    locked.retain(|table| files_before.contains_key(table));
    let files_after = numbers(connection, TABLE_FILES).await;
    let scans_after = numbers(connection, TABLE_SCANS).await;
    execute(connection, "commit").await;

    let mut faults = Vec::new();
    if locked.len() > 1 {
        faults.push(format!("{name} locks several tables in one transaction: {locked:?}"));
    }
    for table in locked {
        if files_before.get(&table) != files_after.get(&table) {
            faults.push(format!("{name} rewrites {table}"));
        }
        let is_read = scans_after.get(&table) > scans_before.get(&table);
        if is_read && !READ_UNDER_LOCK.contains(&(name, &*table)) {
            faults.push(format!("{name} reads {table} while it is locked"));
        }
    }
    faults
}

/// N30: calls of the previous release wait for at most one table, and only for a moment.
#[tokio::test]
async fn no_migration_locks_several_tables_or_one_for_long() {
    let cluster = Cluster::get();
    cluster.empty_database("migration_locks").await;
    let mut connection = cluster.connect_owner("migration_locks").await;
    let released = released_checksums(&migrations_dir());
    let mut all_faults = Vec::new();
    let mut files: Vec<_> = fs::read_dir(migrations_dir())
        .expect("the migrations")
        .map(|entry| entry.expect("a migration").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort_unstable();
    for path in files {
        let name = file_name(&path);
        let migration = fs::read_to_string(&path).expect(name);
        for statements in transactions(&migration) {
            let faults = faults(&mut connection, name, &statements).await;
            // The tables of the first release were empty.
            all_faults.extend(faults.into_iter().filter(|_| !released.contains_key(name)));
        }
    }
    assert!(all_faults.is_empty(), "{all_faults:#?}");
}

/// [`faults`] reports each kind of fault.
#[tokio::test]
async fn each_kind_of_fault_is_noticed() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let mut connection = cluster.connect_owner(&database).await;
    for (statements, expected) in [
        (
            "create policy p1 on users using (true); create policy p2 on roles using (true)",
            "x.sql locks several tables in one transaction: {\"roles\", \"users\"}",
        ),
        ("alter table users alter column version type numeric", "x.sql rewrites users"),
        ("create index on users (created_at)", "x.sql reads users while it is locked"),
        (
            "alter table users add constraint c check (version >= 0)",
            "x.sql reads users while it is locked",
        ),
    ] {
        let faults = faults(&mut connection, "x.sql", statements).await;
        assert!(faults.contains(&expected.to_owned()), "{statements}: {faults:?}");
    }
    let allowed_statements = "create policy p3 on users using (true); create table t (id int); \
                 create index on t (id)";
    assert_eq!(faults(&mut connection, "x.sql", allowed_statements).await, Vec::<String>::new());
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}
