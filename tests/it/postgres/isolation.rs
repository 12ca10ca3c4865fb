//! No statement of the service's role reaches another tenant's rows.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::proto::v1::{CreateUserRequest, RoleLevel};

use super::{count, run, set_session_tenant, sqlstate, tenant_tables};
use crate::harness::{Client, Cluster, TestApp};

/// Creates tenants with at least one row in every table. Returns the database, whose server has
/// stopped, and the ids of the tenants.
async fn create_full_tenants<const N: usize>(slugs: [&str; N]) -> (String, Vec<String>) {
    let app = TestApp::spawn().await;
    let mut tenants = Vec::new();
    for slug in slugs {
        tenants.push(create_full_tenant(&app, slug).await.tenant_id);
    }
    let database = app.database.clone();
    app.stop().await;
    // Insert rows of queues, which may have been processed, and rows that no call created.
    let mut owner_connection = Cluster::get().connect_owner(&database).await;
    for statement in [
        "insert into audit_queue select tenant_id, gen_random_uuid() from tenants",
        "insert into audit_chain select tenant_id, 1000, gen_random_uuid(), sha256('') from tenants",
        "insert into audit_outbox select tenant_id, 1000 from tenants",
        "insert into audit_checkpoints select tenant_id, 1, sha256(''), '', '' from tenants",
        "insert into mail_links (tenant_id, user_id, purpose, token_hash, expires_at)
         select tenant_id, user_id, 'password_reset', '', now() from users",
        "insert into registrations (tenant_id, user_id, token_hash, content, expires_at)
         select tenant_id, user_id, '', '', now() from users",
        "insert into mail_outbox (tenant_id, mail_id, kind, content, expires_at)
         select tenant_id, gen_random_uuid(), 'email_changed', '', now() from tenants",
        "insert into spent_assertions select tenant_id, key_id, '', now() from api_keys",
    ] {
        run(&mut owner_connection, statement.into()).await.expect("rows");
    }
    (database, tenants)
}

async fn app_role_connection(database: &str) -> PgConnection {
    PgConnection::connect(&Cluster::get().app_url(database)).await.expect("a connection")
}

async fn create_full_tenant(app: &TestApp, slug: &str) -> Client {
    let admin = app.create_tenant(slug).await;
    let member = admin.create_member("ada", &["user:read"]).await;
    let request = CreateUserRequest {
        email: format!("grace@{slug}.test"),
        request_id: "once".into(),
        ..CreateUserRequest::default()
    };
    admin.users().create_user(request).await.expect("a user");
    let role = admin.create_role("extra", RoleLevel::Member, &["user:read"]).await;
    admin.assign(&member.user_id, &role).await;
    let account = admin.create_service_account("worker", &[]).await;
    admin.create_api_key(&account).await;
    admin
}

/// A table's rows of a tenant, to compare later.
async fn rows_of(owner_connection: &mut PgConnection, table: &str, tenant: &str) -> Vec<Value> {
    let query = format!(
        "select to_jsonb(t) from {table} t where tenant_id = '{tenant}' order by to_jsonb(t)::text"
    );
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(owner_connection).await.expect("rows")
}

/// Asserts that the row cannot be inserted. Returns the SQLSTATE.
async fn insert_error(
    owner_connection: &mut PgConnection,
    app: &mut PgConnection,
    table: &str,
    row: &Value,
) -> String {
    let columns: Option<String> = sqlx::query_scalar(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute
         where attrelid = $1::regclass and attnum > 0 and not attisdropped and attidentity = ''
           and has_column_privilege('tenantry_app', attrelid, attnum, 'INSERT')",
    )
    .bind(table)
    .fetch_one(owner_connection)
    .await
    .expect("columns");
    // Without the privilege to insert any column, an insert would fail with 42501.
    let Some(columns) = columns else { return "42501".into() };
    let statement = format!(
        "insert into {table} ({columns}) select {columns} from jsonb_populate_record(null::{table}, $1)"
    );
    let result = sqlx::query(AssertSqlSafe(statement)).bind(row).execute(app).await;
    sqlstate(&result.expect_err("a row in another tenant is refused"))
}

/// Asserts that a statement changed nothing: no row was visible, or the privilege is missing.
#[track_caller]
fn assert_nothing_changed(result: Result<u64, String>, what: &str) {
    match result {
        Ok(rows) => assert_eq!(rows, 0, "{what}"),
        Err(code) => assert_eq!(code, "42501", "{what}"),
    }
}

/// E04: row-level security protects the rows of other tenants.
#[tokio::test]
async fn another_tenants_rows_cannot_be_read_changed_or_created() {
    let (database, tenants) = create_full_tenants(["a", "b"]).await;
    let (a, b) = (&tenants[0], &tenants[1]);
    let mut owner_connection = Cluster::get().connect_owner(&database).await;
    let mut conn = app_role_connection(&database).await;
    set_session_tenant(&mut conn, a).await;

    for table in tenant_tables(&mut owner_connection).await {
        let own_rows = rows_of(&mut owner_connection, &table, a).await.len();
        let other_rows = rows_of(&mut owner_connection, &table, b).await;
        assert!(own_rows > 0 && !other_rows.is_empty(), "{table} is empty: add rows in this file");

        let visible_rows = count(&mut conn, format!("select count(*) from {table}")).await;
        assert_eq!(usize::try_from(visible_rows), Ok(own_rows), "{table}");
        for statement in [
            format!("update {table} set tenant_id = tenant_id where tenant_id = '{b}'"),
            format!("delete from {table} where tenant_id = '{b}'"),
        ] {
            assert_nothing_changed(run(&mut conn, statement.clone()).await, &statement);
        }
        let give_away = format!("update {table} set tenant_id = '{b}'");
        assert_eq!(run(&mut conn, give_away).await, Err("42501".into()), "{table}");
        assert_eq!(
            insert_error(&mut owner_connection, &mut conn, &table, &other_rows[0]).await,
            "42501",
            "{table}"
        );
        assert_eq!(rows_of(&mut owner_connection, &table, b).await, other_rows, "{table}");
    }
}

/// E03: a transaction without a tenant sees no row.
#[tokio::test]
async fn without_a_tenant_no_row_is_visible() {
    let (database, tenants) = create_full_tenants(["a"]).await;
    let a = &tenants[0];
    let mut owner_connection = Cluster::get().connect_owner(&database).await;
    let tables = tenant_tables(&mut owner_connection).await;
    let not_a_tenant = [
        None,
        Some(String::new()),
        Some("no uuid".into()),
        Some(format!("{a} ")),
        Some(a.to_uppercase().replace('0', "A")),
        Some(format!("{a},{a}")),
        Some("00000000-0000-0000-0000-000000000001".into()),
    ];
    for setting in not_a_tenant {
        let mut conn = app_role_connection(&database).await;
        if let Some(setting) = &setting {
            set_session_tenant(&mut conn, setting).await;
        }
        for table in &tables {
            let rows = rows_of(&mut owner_connection, table, a).await;
            let what = format!("{table} with {setting:?}");
            let visible_rows = count(&mut conn, format!("select count(*) from {table}")).await;
            assert_eq!(visible_rows, 0, "{what}");
            assert_nothing_changed(run(&mut conn, format!("delete from {table}")).await, &what);
            assert_nothing_changed(
                run(&mut conn, format!("update {table} set tenant_id = tenant_id")).await,
                &what,
            );
            assert_eq!(
                insert_error(&mut owner_connection, &mut conn, table, &rows[0]).await,
                "42501",
                "{what}"
            );
            assert_eq!(rows_of(&mut owner_connection, table, a).await, rows, "{what}");
        }
    }
}

/// E14: the planner's statistics do not reveal rows of other tenants.
#[tokio::test]
async fn statistics_reveal_no_rows() {
    let (database, tenants) = create_full_tenants(["a"]).await;
    let mut owner_connection = Cluster::get().connect_owner(&database).await;
    run(&mut owner_connection, "analyze".into()).await.expect("analyzed");
    let query = || {
        "select count(*) from pg_stats where schemaname = 'public'
                    and tablename <> '_sqlx_migrations'"
            .to_owned()
    };
    assert!(count(&mut owner_connection, query()).await > 0);
    let mut conn = app_role_connection(&database).await;
    set_session_tenant(&mut conn, &tenants[0]).await;
    assert_eq!(count(&mut conn, query()).await, 0);
}
