//! Snapshots of the database, to compare the rows before and after a call.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{TestApp, wait_until};

/// Kinds of audit events that record a refusal.
const REFUSALS: &str = "'call_refused', 'refresh_refused', 'registration_refused'";

impl TestApp {
    /// All rows of a tenant as JSON, by table, audit trail and change feed included. Leaves out
    /// audit events about refusals, and the audit chain, which a background worker writes later.
    pub async fn rows_of(&self, tenant_id: &str) -> BTreeMap<String, String> {
        let mut owner_connection = self.reused_owner_connection().await;
        let row_query_of = |table: String| {
            format!(
                "select '{table}',
                   coalesce(jsonb_agg(to_jsonb(t) order by to_jsonb(t)::text), '[]')::text
                 from {table} t where tenant_id = $1::text::uuid
                   and coalesce(to_jsonb(t) ->> 'kind', '') not in ({REFUSALS})"
            )
        };
        let sql =
            tables(&mut owner_connection).await.into_iter().map(row_query_of).collect::<Vec<_>>();
        let query = sqlx::query_as(AssertSqlSafe(sql.join(" union all "))).bind(tenant_id);
        let rows: Vec<(String, String)> =
            query.fetch_all(&mut *owner_connection).await.expect("rows");
        rows.into_iter().collect()
    }

    /// Number of rows of each table. Leaves out the same rows as [`TestApp::rows_of`].
    pub async fn row_counts(&self) -> BTreeMap<String, i64> {
        self.assert_not_shared();
        let mut owner_connection = self.reused_owner_connection().await;
        let count_query_of = |table: String| {
            format!(
                "select '{table}', count(*) from {table} t
                 where coalesce(to_jsonb(t) ->> 'kind', '') not in ({REFUSALS})"
            )
        };
        let sql =
            tables(&mut owner_connection).await.into_iter().map(count_query_of).collect::<Vec<_>>();
        let query = sqlx::query_as(AssertSqlSafe(sql.join(" union all ")));
        let counts: Vec<(String, i64)> =
            query.fetch_all(&mut *owner_connection).await.expect("counts");
        counts.into_iter().collect()
    }

    /// Waits until a background worker has deleted the rows of all deleted tenants.
    pub async fn wait_until_purged(&self) {
        self.assert_not_shared();
        let nothing_to_purge =
            "select not exists (select from tenants where deleted_at is not null)";
        self.until_true(nothing_to_purge).await;
    }

    /// Waits until every transaction that began before the last change has ended. This includes
    /// transactions in the databases of other tests, because a snapshot
    /// covers all databases of the Postgres server.
    pub async fn wait_until_changes_settled(&self) {
        self.assert_not_shared();
        let no_older_transaction = "select not exists (select from changes
                    where xid >= pg_snapshot_xmin(pg_current_snapshot()))";
        self.until_true(no_older_transaction).await;
    }

    /// Waits until a statement waits for a lock.
    pub async fn wait_until_lock_wait(&self) {
        self.assert_not_shared();
        let waits = "select exists (select from pg_stat_activity
                    where wait_event_type = 'Lock' and datname = current_database())";
        self.until_true(waits).await;
    }

    /// Waits until every audit event is in the audit chain and was sent to Redis.
    pub async fn wait_until_audit_settled(&self) {
        self.assert_not_shared();
        let queues_are_empty =
            "select not exists (select from audit_queue) and not exists (select from audit_outbox)";
        self.until_true(queues_are_empty).await;
    }

    /// Waits until this query returns true.
    async fn until_true(&self, query: &'static str) {
        let is_true = || async {
            let mut owner_connection = self.reused_owner_connection().await;
            sqlx::query_scalar(query).fetch_one(&mut *owner_connection).await.expect("a boolean")
        };
        wait_until(20, is_true).await;
    }

    /// Number of a tenant's audit events of a kind.
    pub async fn audit_event_count(&self, tenant_id: &str, kind: &str) -> i64 {
        let sql =
            "select count(*) from audit_events where tenant_id = $1::text::uuid and kind = $2";
        let count = sqlx::query_scalar(sql).bind(tenant_id).bind(kind);
        count.fetch_one(&mut *self.reused_owner_connection().await).await.expect("a count")
    }
}

/// The tables whose rows are compared.
async fn tables(owner_connection: &mut PgConnection) -> Vec<String> {
    let sql = "select relname::text from pg_class
               where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
                 and relname not in ('_sqlx_migrations', 'change_marks', 'epochs',
                   'audit_chain', 'audit_queue', 'audit_outbox')";
    let tables: Vec<String> =
        sqlx::query_scalar(sql).fetch_all(owner_connection).await.expect("tables");
    assert!(tables.len() > 5, "{tables:?}");
    tables
}
