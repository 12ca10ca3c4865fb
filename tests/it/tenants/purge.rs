//! The rows of a deleted tenant are deleted in the background.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::proto::v1::{
    CheckRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest, WatchEventsRequest,
    WatchPermissionsRequest, WhoAmIRequest,
};
use tonic::{Code, Streaming};

use crate::harness::{
    Client, PASSWORD, TestApp, assert_refused, redis, wait_until, within_seconds,
};

/// Number of users of the large tenant.
const USERS: u32 = 5_000;

/// Tables that keep rows of a deleted tenant: the audit trail, and the change feed, whose rows are
/// deleted after an hour.
const KEPT_TABLES: &[&str] = &["audit_events", "audit_chain", "changes"];

/// Inserts [`USERS`] users, each with a password, a session and a role. Triggers and foreign keys
/// are off, because they would take most of the time.
const INSERT_USERS: &str = "
set session_replication_role = replica;
create temp table new_users as
    select tenant_id, role_id, gen_random_uuid() as user_id
    from roles, generate_series(1, $users)
    where tenant_id = '$tenant' and name = 'org_admin';
insert into users (tenant_id, user_id, profile, email_index, email_lookup)
    select tenant_id, user_id, '', sha256(user_id::text::bytea), sha256(user_id::text::bytea)
    from new_users;
insert into subjects select tenant_id, user_id, 'user' from new_users;
insert into credentials (tenant_id, user_id, password_hash)
    select tenant_id, user_id, 'x' from new_users;
insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
    select tenant_id, gen_random_uuid(), user_id, role_id from new_users;
insert into sessions (tenant_id, session_id, user_id, client, amr, refresh_jti, refresh_issued_at,
        refresh_expires_at, refresh_kid, access_jti, access_expires_at, access_kid, expires_at)
    select tenant_id, gen_random_uuid(), user_id, '', '{}', '', now(), now(), '', '', now(), '',
        now() from new_users;
drop table new_users;
set session_replication_role = origin";

async fn insert_users(owner_connection: &mut PgConnection, tenant: &str, users: u32) {
    let sql = INSERT_USERS.replace("$tenant", tenant).replace("$users", &users.to_string());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(owner_connection).await.expect("users");
}

async fn delete(client: &Client, tenant: &str) {
    let request = DeleteTenantRequest { tenant: tenant.into(), ..DeleteTenantRequest::default() };
    client.tenants().delete_tenant(request).await.expect("deleted");
}

/// Number of the tenant's rows in each table of the catalog that has a column `tenant_id`. Tables
/// without such rows are left out.
async fn rows_of_tenant(
    owner_connection: &mut PgConnection,
    tenant: &str,
) -> BTreeMap<String, i64> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid
         where attname = 'tenant_id' and relkind in ('r', 'p')
           and relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut *owner_connection)
    .await
    .expect("tables");
    assert!(tables.len() > 15, "{tables:?}");
    let mut rows = BTreeMap::new();
    for table in tables {
        let query = format!("select count(*) from {table} where tenant_id = '{tenant}'");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut *owner_connection)
            .await
            .expect("a count");
        if count > 0 {
            rows.insert(table, count);
        }
    }
    rows
}

/// Waits until the tenant has no rows outside of [`KEPT_TABLES`].
async fn wait_until_purged(app: &TestApp, tenant: &str) {
    let query = "select count(*) from tenants where tenant_id = $1";
    wait_until(120, || async { app.count(query, tenant).await == 0 }).await;
    let is_empty = || async {
        let mut rows = rows_of_tenant(&mut app.owner_connection().await, tenant).await;
        rows.retain(|table, _| !KEPT_TABLES.contains(&table.as_str()));
        rows.is_empty()
    };
    // The purge does not wait for the events in the queues of the audit trail. The rows of these
    // queues are deleted a little later.
    wait_until(60, is_empty).await;
}

/// Asserts that a stream ends with the error of a caller who is no longer admitted.
async fn assert_ends<M: std::fmt::Debug>(mut stream: Streaming<M>) {
    let end = within_seconds(5, async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    });
    assert_eq!(end.await.code(), Code::Unauthenticated);
}

/// N31: the deletion changes the same few rows whatever the size of the tenant, and has its whole
/// effect immediately. The rows of the tenant are deleted later, without an entry in the change
/// feed for each row.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_many_users_is_deleted_immediately_and_purged_later() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("ada", &["doc:read"]).await;
    let platform_admin = app.platform_admin().await;
    let mut owner_connection = app.owner_connection().await;
    insert_users(&mut owner_connection, &acme.tenant_id, USERS).await;
    let on_second_replica = acme.on_server(&second_replica.channel);
    assert!(on_second_replica.user_may(&member.user_id, "doc:read").await);
    let watch_permissions = WatchPermissionsRequest::default();
    let permission_stream =
        acme.permissions().watch_permissions(watch_permissions).await.expect("opens").into_inner();
    let event_stream =
        acme.audit().watch_events(WatchEventsRequest::default()).await.expect("opens").into_inner();

    // While the test holds the lock of the purge, only the call itself changes rows.
    let mut purge_lock = owner_connection.begin().await.expect("begun");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('tenantry:purge', 0))")
        .execute(&mut *purge_lock)
        .await
        .expect("locked");
    let mut expected_rows = app.row_counts().await;
    delete(&platform_admin, "acme").await;
    for (table, change) in [("audit_events", 2), ("changes", 1), ("data_keys", -1)] {
        *expected_rows.get_mut(table).expect("the table exists") += change;
    }
    assert_eq!(app.row_counts().await, expected_rows);

    let request = GetTenantRequest { tenant: acme.tenant_id.clone() };
    let result = platform_admin.tenants().get_tenant(request).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    let request = ListTenantsRequest {
        filter: "state = TENANT_STATE_SUSPENDED".into(),
        ..Default::default()
    };
    let list = platform_admin.tenants().list_tenants(request).await.expect("a list").into_inner();
    assert_eq!(list.tenants, []);
    let sign_in = app.anonymous().try_login("acme", &acme.email, PASSWORD).await;
    assert_eq!(sign_in.err().map(|status| status.code()), Some(Code::Unauthenticated));
    let result = acme.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let check = || CheckRequest {
        user_id: member.user_id.clone(),
        permission: "doc:read".into(),
        ..CheckRequest::default()
    };
    let result = acme.permissions().check(check()).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let is_denied_on_second_replica =
        || async { on_second_replica.permissions().check(check()).await.is_err() };
    wait_until(2, is_denied_on_second_replica).await;
    assert_ends(permission_stream).await;
    assert_ends(event_stream).await;
    let successor = app.create_tenant("acme").await;
    assert!(!successor.user_may(&member.user_id, "doc:read").await);
    wait_until(5, || async { app.metric("tenantry_purge_tenants_waiting").await == Some(1.0) })
        .await;

    let feed_query = "select count(*) from changes where tenant_id = $1";
    let changes = app.count(feed_query, &acme.tenant_id).await;
    purge_lock.rollback().await.expect("unlocked");
    wait_until_purged(&app, &acme.tenant_id).await;
    assert_eq!(app.count(feed_query, &acme.tenant_id).await, changes);
    // The keys of sessions and audit streams are deleted. Counters of failed sign-ins are not
    // deleted, because they expire.
    for pattern in ["session", "audit"] {
        let keys = redis(&format!("KEYS {pattern}*{}*", acme.tenant_id)).await;
        assert!(!keys.contains(&acme.tenant_id), "{keys}");
    }
    let mut purged_rows = 0.0;
    for replica in [&app, &second_replica] {
        purged_rows += replica.metric("tenantry_purge_rows_total").await.expect("a number");
    }
    // Each user has five rows, so this is a lower bound.
    assert!(purged_rows >= f64::from(4 * USERS), "{purged_rows}");
    wait_until(5, || async { app.metric("tenantry_purge_tenants_waiting").await == Some(0.0) })
        .await;
    assert_eq!(app.metric("tenantry_purge_oldest_seconds").await, Some(0.0));
    assert!(successor.may("doc:read").await);
}

/// N31: another replica continues a purge that was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_purge_is_continued() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let mut owner_connection = app.owner_connection().await;
    insert_users(&mut owner_connection, &acme.tenant_id, 3000).await;
    // The purge deletes users before roles, and waits for the lock of a role.
    let mut role_lock = owner_connection.begin().await.expect("begun");
    sqlx::query("select from roles for update").execute(&mut *role_lock).await.expect("locked");
    delete(&platform_admin, "acme").await;
    let users_query = "select count(*) from users where tenant_id = $1";
    wait_until(30, || async { app.count(users_query, &acme.tenant_id).await == 0 }).await;
    let roles_query = "select count(*) from roles where tenant_id = $1";
    assert!(app.count(roles_query, &acme.tenant_id).await > 0);
    let database = app.database.clone();
    app.stop().await;
    role_lock.rollback().await.expect("unlocked");
    assert!(rows_of_tenant(&mut owner_connection, &acme.tenant_id).await.contains_key("tenants"));

    let restarted_app = TestApp::on_database(&database, |_| {}).await;
    wait_until_purged(&restarted_app, &acme.tenant_id).await;
}

/// A connection as the service, which works in this tenant.
async fn app_role_connection(app: &TestApp, tenant: &str) -> PgConnection {
    let mut connection = app.app_role_pool().await.acquire().await.expect("a connection").detach();
    sqlx::query("select set_config('tenantry.tenant', $1, false)")
        .bind(tenant)
        .execute(&mut connection)
        .await
        .expect("the tenant is set");
    connection
}

const INSERT_USER: &str =
    "insert into users (tenant_id, user_id, profile, email_index, email_lookup)
     values (current_tenant(), gen_random_uuid(), '', sha256(gen_random_uuid()::text::bytea), '')";

/// N31: the deletion waits for a write that has begun, and purges the row. A later write is
/// refused.
#[tokio::test]
async fn no_row_outlives_its_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let mut writer = app_role_connection(&app, &acme.tenant_id).await;
    let mut late_writer = app_role_connection(&app, &acme.tenant_id).await;
    let mut transaction = writer.begin().await.expect("begun");
    sqlx::query(INSERT_USER).execute(&mut *transaction).await.expect("inserted");
    let commit = async {
        app.wait_until_lock_wait().await;
        transaction.commit().await.expect("committed");
    };
    tokio::join!(delete(&platform_admin, "acme"), commit);

    let error = sqlx::query(INSERT_USER).execute(&mut late_writer).await.expect_err("refused");
    let error = error.as_database_error().expect("an error of Postgres");
    assert_eq!(error.constraint(), Some("users_tenant_fkey"));
    wait_until_purged(&app, &acme.tenant_id).await;
}

/// N31: the statements with which release 0.1.0 deletes a tenant still work, and do nothing to a
/// tenant that this release deleted.
#[tokio::test]
async fn the_previous_release_can_delete_tenants() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let platform_admin = app.platform_admin().await;
    delete(&platform_admin, "other").await;
    for (tenant, deleted_rows) in [(&acme, 1), (&other, 0)] {
        let mut connection = app_role_connection(&app, &tenant.tenant_id).await;
        let mut transaction = connection.begin().await.expect("begun");
        sqlx::query("delete from role_assignments").execute(&mut *transaction).await.expect("ran");
        let deleted = sqlx::query("delete from tenants where tenant_id = current_tenant()")
            .execute(&mut *transaction)
            .await
            .expect("ran");
        assert_eq!(deleted.rows_affected(), deleted_rows);
        transaction.commit().await.expect("committed");
        wait_until_purged(&app, &tenant.tenant_id).await;
    }
}
