//! Snapshots of the database, to compare the rows before and after a call.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{TestApp, until};

/// Kinds of audit events that record a refusal.
const REFUSALS: &str = "'call_refused', 'refresh_refused', 'registration_refused'";

impl TestApp {
    /// All rows of a tenant as JSON, by table, audit trail and change feed included. Leaves out
    /// audit events about refusals, and the audit chain, which is written later.
    pub async fn rows_of(&self, tenant_id: &str) -> BTreeMap<String, String> {
        let mut owner = self.kept_owner().await;
        let rows_of = |table: String| {
            format!(
                "select '{table}',
                   coalesce(jsonb_agg(to_jsonb(t) order by to_jsonb(t)::text), '[]')::text
                 from {table} t where tenant_id = $1::text::uuid
                   and coalesce(to_jsonb(t) ->> 'kind', '') not in ({REFUSALS})"
            )
        };
        let sql = tables(&mut owner).await.into_iter().map(rows_of).collect::<Vec<_>>();
        let found = sqlx::query_as(AssertSqlSafe(sql.join(" union all "))).bind(tenant_id);
        let rows: Vec<(String, String)> = found.fetch_all(&mut *owner).await.expect("rows");
        rows.into_iter().collect()
    }

    /// Number of rows of each table. Leaves out the same rows as [`TestApp::rows_of`].
    pub async fn row_counts(&self) -> BTreeMap<String, i64> {
        self.must_be_own();
        let mut owner = self.kept_owner().await;
        let count_of = |table: String| {
            format!(
                "select '{table}', count(*) from {table} t
                 where coalesce(to_jsonb(t) ->> 'kind', '') not in ({REFUSALS})"
            )
        };
        let sql = tables(&mut owner).await.into_iter().map(count_of).collect::<Vec<_>>();
        let found = sqlx::query_as(AssertSqlSafe(sql.join(" union all ")));
        let counts: Vec<(String, i64)> = found.fetch_all(&mut *owner).await.expect("counts");
        counts.into_iter().collect()
    }

    /// Waits until every transaction that began before the last change has ended. This includes
    /// transactions in the databases of other tests, because all share one snapshot horizon.
    pub async fn changes_settled(&self) {
        self.must_be_own();
        let settled = "select not exists (select from changes
                    where xid >= pg_snapshot_xmin(pg_current_snapshot()))";
        self.until_true(settled).await;
    }

    /// Waits until every audit event is in the audit chain and was sent.
    pub async fn audit_settled(&self) {
        self.must_be_own();
        let settled =
            "select not exists (select from audit_queue) and not exists (select from audit_outbox)";
        self.until_true(settled).await;
    }

    async fn until_true(&self, question: &'static str) {
        let is_true = || async {
            let mut owner = self.kept_owner().await;
            sqlx::query_scalar(question).fetch_one(&mut *owner).await.expect("an answer")
        };
        until(20, is_true).await;
    }

    /// Number of a tenant's audit events of a kind.
    pub async fn audited(&self, tenant_id: &str, kind: &str) -> i64 {
        let sql =
            "select count(*) from audit_events where tenant_id = $1::text::uuid and kind = $2";
        let count = sqlx::query_scalar(sql).bind(tenant_id).bind(kind);
        count.fetch_one(&mut *self.kept_owner().await).await.expect("a count")
    }
}

async fn tables(owner: &mut PgConnection) -> Vec<String> {
    let sql = "select relname::text from pg_class
               where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
                 and relname not in ('_sqlx_migrations', 'change_marks',
                   'audit_chain', 'audit_queue', 'audit_outbox')";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(owner).await.expect("tables");
    assert!(tables.len() > 5, "{tables:?}");
    tables
}
