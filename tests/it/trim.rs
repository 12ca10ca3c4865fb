//! Rows that ended long ago are deleted, and every table and every key in Redis has a bound.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, PgConnection};
use tenantry::proto::v1::LogoutRequest;

use crate::harness::{PrivateRedis, TestApp, wait_until};

/// Inserts 3000 rows into each trimmed table, without triggers and foreign keys. `$tenant` is their
/// tenant. The rows ended `$days` days ago, and the retention is 30 days. The last four tables have
/// a shorter retention, so their rows ended 29 or 30 days later.
const INSERT_ENDED: &str = "
set session_replication_role = replica;
insert into sessions (tenant_id, session_id, user_id, client, amr, refresh_jti, refresh_issued_at,
        refresh_expires_at, refresh_kid, access_jti, access_expires_at, access_kid, expires_at,
        revoked_at, revoke_reason)
    select '$tenant', gen_random_uuid(), gen_random_uuid(), '', '{}', '', now(), refresh, '', '',
        now(), '', whole, revoked, case when revoked is not null then 'x' end
    from (values (now() - interval '$days days', now() + interval '1 day', null::timestamptz),
        (now() + interval '1 day', now() - interval '$days days', null),
        (now() + interval '1 day', now() + interval '1 day', now() - interval '$days days')
    ) ended (whole, refresh, revoked), generate_series(1, 1000);
insert into role_assignments (tenant_id, assignment_id, user_id, role_id, expires_at)
    select '$tenant', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
        now() - interval '$days days' from generate_series(1, 3000);
insert into api_keys (tenant_id, key_id, account_id, public_key, expires_at, revoked_at)
    select '$tenant', gen_random_uuid(), gen_random_uuid(), 'x', expires, revoked
    from (values (now() - interval '$days days', null::timestamptz),
        (now() + interval '1 day', now() - interval '$days days')) ended (expires, revoked),
        generate_series(1, 1500);
insert into spent_assertions
    select '$tenant', gen_random_uuid(), '', now() - interval '$days days' + interval '29 days'
    from generate_series(1, 3000);
insert into mail_links (tenant_id, user_id, purpose, token_hash, expires_at)
    select '$tenant', gen_random_uuid(), 'password_reset', '',
        now() - interval '$days days' + interval '29 days' from generate_series(1, 3000);
insert into mail_outbox (tenant_id, mail_id, kind, content, expires_at)
    select '$tenant', gen_random_uuid(), 'email_changed', '',
        now() - interval '$days days' + interval '29 days' from generate_series(1, 3000);
insert into registrations (tenant_id, user_id, token_hash, content, expires_at)
    select '$tenant', gen_random_uuid(), '', '',
        now() - interval '$days days' + interval '30 days' from generate_series(1, 3000);
set session_replication_role = origin";

/// The tables of [`INSERT_ENDED`].
const TABLES: [&str; 7] = [
    "sessions",
    "role_assignments",
    "api_keys",
    "spent_assertions",
    "mail_links",
    "mail_outbox",
    "registrations",
];

async fn insert_ended(owner_connection: &mut PgConnection, tenant: &str, days: u32) {
    let sql = INSERT_ENDED.replace("$tenant", tenant).replace("$days", &days.to_string());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(owner_connection).await.expect("rows");
}

/// N32: the first pass of a server deletes the rows that ended longer ago than their retention, and
/// no others. The deletions write no changes to the feed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_deleted_when_their_retention_is_over() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("ada", &["doc:read"]).await;
    let account = acme.create_service_account("worker", &[]).await;
    acme.create_api_key(&account).await;
    let mut owner_connection = app.owner_connection().await;
    insert_ended(&mut owner_connection, &acme.tenant_id, 29).await;
    let kept_rows = app.row_counts().await;
    insert_ended(&mut owner_connection, &acme.tenant_id, 31).await;

    let replica = TestApp::on_database(&app.database, |_| {}).await;
    wait_until(60, || async { app.row_counts().await == kept_rows }).await;
    for table in TABLES {
        let deleted_metric = format!("tenantry_trimmed_rows_total{{table=\"{table}\"}}");
        wait_until(10, || async { replica.metric(&deleted_metric).await == Some(3000.0) }).await;
        let last_pass = format!("tenantry_trim_last_pass_timestamp_seconds{{table=\"{table}\"}}");
        wait_until(10, || async { replica.metric(&last_pass).await > Some(0.0) }).await;
    }
    let rows = "tenantry_table_rows{table=\"users\"}";
    wait_until(10, || async { replica.metric(rows).await.is_some() }).await;
    assert!(acme.user_may(&member.user_id, "doc:read").await);
}

/// The texts in backquotes in the first column of the tables in docs/data.md, in the section "How
/// long data is kept".
fn documented_names() -> BTreeSet<String> {
    let page = include_str!("../../docs/data.md");
    let (_, section) = page.split_once("## How long data is kept").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("the next section");
    let names = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(ToOwned::to_owned).collect()
}

/// N32: a new table needs a row in docs/data.md.
#[tokio::test]
async fn the_documentation_has_the_bound_of_every_table() {
    let app = TestApp::spawn().await;
    let tables: BTreeSet<String> = sqlx::query_scalar::<_, String>(
        "select relname::text from pg_class where relkind in ('r', 'p')
         and relnamespace = 'public'::regnamespace and relname <> '_sqlx_migrations'",
    )
    .fetch_all(&mut app.owner_connection().await)
    .await
    .expect("tables")
    .into_iter()
    .collect();
    let mut documented = documented_names();
    documented.retain(|name| !name.ends_with(':'));
    assert_eq!(documented, tables);
}

/// The bulk strings of a reply of Redis.
fn bulk_strings(reply: &str) -> Vec<String> {
    let lines = reply.lines().map(str::trim);
    lines.filter(|line| !line.starts_with(['*', '$', '+', ':'])).map(ToOwned::to_owned).collect()
}

/// N32: every key in Redis expires, and its prefix has a row in docs/data.md.
#[tokio::test]
async fn every_key_in_redis_expires_and_is_documented() {
    let redis = PrivateRedis::start().await;
    let url = redis.url();
    let app = TestApp::with_settings(|values| {
        values.set("REDIS_URL", url);
        // With 60 calls per hour, each call keeps its counter for a minute, so the counters still
        // exist at the end of the test.
        values.set("RATE_LIMIT_SIGN_IN", "60/1h,60/1h");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("ada", &["doc:read"]).await;
    let sign_in = app.anonymous().try_login("acme", &member.email, "wrong").await;
    assert!(sign_in.is_err());
    member.auth().logout(LogoutRequest::default()).await.expect("signed out");
    app.wait_until_audit_settled().await;

    let documented = documented_names();
    let mut prefixes = BTreeSet::new();
    let keys = redis.ask("KEYS *").await;
    for key in bulk_strings(&keys) {
        let (prefix, _) = key.split_once(':').expect("a prefix");
        let prefix = format!("{prefix}:");
        assert!(documented.contains(&prefix), "{key} is not documented");
        let expiry = redis.ask(&format!("TTL {key}")).await;
        assert!(!expiry.starts_with(":-1"), "{key} does not expire");
        prefixes.insert(prefix);
    }
    for prefix in ["audit:", "guess:", "rate:", "session-epoch:"] {
        assert!(prefixes.contains(prefix), "{prefix} was not tested: {keys}");
    }
}
