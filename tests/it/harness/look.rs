//! What is in the database, to compare before and after.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{TestApp, until};

/// Kinds of events that tell of what did not happen.
const REFUSALS: &str = "'call_refused', 'refresh_refused', 'registration_refused'";

impl TestApp {
    /// Every row of a tenant, of every table, as JSON: audit trail, change feed
    /// and all. Not that something was refused, nor where the trail's events have
    /// their places, which comes later.
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

    /// How many rows each table has; refusals and places are left out as above.
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

    /// Waits until every transaction that began before the last change has ended, in
    /// other tests' databases too: none holds the horizon below it.
    pub async fn changes_settled(&self) {
        self.must_be_own();
        let over = "select not exists (select from changes
                    where xid >= pg_snapshot_xmin(pg_current_snapshot()))";
        self.until_so(over).await;
    }

    /// Waits until all that was recorded has its place, and was sent.
    pub async fn audit_settled(&self) {
        self.must_be_own();
        let settled =
            "select not exists (select from audit_queue) and not exists (select from audit_outbox)";
        self.until_so(settled).await;
    }

    async fn until_so(&self, question: &'static str) {
        let is_so = || async {
            let mut owner = self.kept_owner().await;
            sqlx::query_scalar(question).fetch_one(&mut *owner).await.expect("an answer")
        };
        until(20, is_so).await;
    }

    /// How many audit events of a kind a tenant has.
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
