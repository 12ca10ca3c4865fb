//! Slow calls, which wait for a lock, cannot take all connections and permits. When a slow call
//! times out, its statement is cancelled.

use futures::future::join_all;
use sqlx::Connection;
use tenantry::proto::v1::{
    CheckRequest, Consistency, GetTenantRequest, RoleLevel, UpdateTenantRequest, UpdateUserRequest,
};
use tokio::sync::Mutex;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Client, TestApp, assert_refused, wait_until, within_seconds};

/// Whether the statement of a call waits for a lock in this test's database. The statements of the
/// trim are left out, because the trim is a background worker.
async fn a_statement_waits_for_a_lock(activity_connection: &Mutex<sqlx::PgConnection>) -> bool {
    let query = "select exists (select from pg_stat_activity
                   where datname = current_database() and usename = 'tenantry_app'
                     and state <> 'idle' and wait_event_type = 'Lock'
                     and query not like '%trim_rows%')";
    let mut activity_connection = activity_connection.lock().await;
    sqlx::query_scalar(query).fetch_one(&mut *activity_connection).await.expect("the activity")
}

async fn rename(client: &Client, name: &str) -> Result<(), tonic::Status> {
    let request = UpdateTenantRequest { name: Some(name.into()), ..UpdateTenantRequest::default() };
    client.tenants().update_tenant(request).await.map(drop)
}

/// Locks the row of the tenant acme until the transaction is rolled back.
async fn lock_acme(
    locking_connection: &mut sqlx::PgConnection,
) -> sqlx::Transaction<'_, sqlx::Postgres> {
    let mut lock_transaction = locking_connection.begin().await.expect("a transaction");
    let lock = "select from tenants where slug = 'acme' for update";
    sqlx::query(lock).execute(&mut *lock_transaction).await.expect("the row is locked");
    lock_transaction
}

/// N22: slow calls of one tenant cannot take all connections to Postgres.
#[tokio::test]
async fn slow_calls_of_one_tenant_cannot_take_all_connections() {
    let app = TestApp::with_settings(|values| values.set("REQUEST_TIMEOUT", "4s")).await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let mut locking_connection = app.owner_connection().await;
    let lock_transaction = lock_acme(&mut locking_connection).await;
    let activity_connection = Mutex::new(app.owner_connection().await);

    let slow_calls = join_all((0..30).map(|_| rename(&acme, "Acme")));
    let other_calls = async {
        wait_until(10, || a_statement_waits_for_a_lock(&activity_connection)).await;
        for _ in 0..5 {
            other.tenants().get_tenant(GetTenantRequest::default()).await.expect("read");
            rename(&other, "Other").await.expect("written");
        }
        assert!(
            a_statement_waits_for_a_lock(&activity_connection).await,
            "the slow calls still wait"
        );
    };
    let (slow_calls, ()) =
        within_seconds(30, async { tokio::join!(slow_calls, other_calls) }).await;
    let mut timed_out = 0;
    for reply in slow_calls {
        match reply.expect_err("the row is locked").code() {
            Code::DeadlineExceeded => timed_out += 1,
            Code::ResourceExhausted => {}
            code => panic!("{code:?}"),
        }
    }
    assert!(timed_out > 0, "no call that waited for the row timed out");
    // `BEGIN` set `statement_timeout` to end about 100 ms after the call's deadline, so Postgres
    // cancels the statements soon after the calls time out.
    wait_until(3, || async { !a_statement_waits_for_a_lock(&activity_connection).await }).await;
    lock_transaction.rollback().await.expect("the lock is released");
    wait_until(10, || async { rename(&acme, "Acme").await.is_ok() }).await;
}

/// N22: the permits for calls in progress are shared among tenants, like connections.
#[tokio::test]
async fn slow_calls_of_one_tenant_cannot_take_all_permits() {
    let app = TestApp::with_settings(|values| values.set("MAX_REQUESTS", "12")).await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let mut locking_connection = app.owner_connection().await;
    let lock_transaction = lock_acme(&mut locking_connection).await;
    let activity_connection = Mutex::new(app.owner_connection().await);

    let slow_calls = join_all((0..12).map(|_| rename(&acme, "Acme")));
    let other_calls = async {
        wait_until(10, || a_statement_waits_for_a_lock(&activity_connection)).await;
        for _ in 0..10 {
            rename(&other, "Other").await.expect("written");
        }
        lock_transaction.rollback().await.expect("the lock is released");
    };
    let (slow_calls, ()) =
        within_seconds(30, async { tokio::join!(slow_calls, other_calls) }).await;
    let refusals: Vec<_> = slow_calls.into_iter().filter_map(Result::err).collect();
    assert!(refusals.len() >= 6, "one tenant got more than half of all permits: {refusals:?}");
    for status in refusals {
        assert_refused(
            Err::<tonic::Response<()>, _>(status),
            Code::ResourceExhausted,
            "OVERLOADED",
        );
    }
    let mut refused_count = 0.0;
    for label in ["owner", "subject"] {
        let name = format!("tenantry_requests_refused_total{{by=\"{label}\"}}");
        refused_count += app.metric(&name).await.expect("the metric exists");
    }
    assert!(refused_count >= 6.0, "{refused_count}");
}

/// N22: the refusal of a call for lack of connections carries a retry delay.
#[tokio::test]
async fn a_refusal_for_lack_of_connections_has_a_retry_delay() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut locking_connection = app.owner_connection().await;
    let lock_transaction = lock_acme(&mut locking_connection).await;
    let refused_metric = "tenantry_db_share_refused_total";
    assert_eq!(app.metric(refused_metric).await, Some(0.0));

    let slow_calls = join_all((0..8).map(|_| rename(&acme, "Acme")));
    let release = async {
        wait_until(10, || async { app.metric(refused_metric).await > Some(0.0) }).await;
        lock_transaction.rollback().await.expect("the lock is released");
    };
    let (slow_calls, ()) = within_seconds(30, async { tokio::join!(slow_calls, release) }).await;
    let errors = slow_calls.into_iter().filter_map(Result::err);
    let refusals: Vec<_> =
        errors.filter(|status| status.code() == Code::ResourceExhausted).collect();
    assert!(!refusals.is_empty());
    for status in refusals {
        let status = assert_refused(
            Err::<tonic::Response<()>, _>(status),
            Code::ResourceExhausted,
            "OVERLOADED",
        );
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    }
}

/// N22: a statement outside a transaction is also cancelled when its call times out.
#[tokio::test]
async fn the_statement_of_a_timed_out_check_is_cancelled_in_postgres() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut locking_connection = app.owner_connection().await;
    let mut lock_transaction = locking_connection.begin().await.expect("a transaction");
    let lock = "lock table role_assignments in access exclusive mode";
    sqlx::query(lock).execute(&mut *lock_transaction).await.expect("the table is locked");
    let activity_connection = Mutex::new(app.owner_connection().await);

    let short_timeout_app =
        TestApp::on_database(&app.database, |values| values.set("REQUEST_TIMEOUT", "500ms")).await;
    let check = CheckRequest {
        permission: "user:read".into(),
        consistency: Consistency::FullyConsistent.into(),
        ..CheckRequest::default()
    };
    let reply = acme.on_server(&short_timeout_app.channel).permissions().check(check).await;
    assert_refused(reply, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    // Outside a transaction only the session's limits apply: `lock_timeout` 5 s,
    // `statement_timeout` 10 s. After less than 4 s only the service can have cancelled the
    // statement.
    wait_until(3, || async { !a_statement_waits_for_a_lock(&activity_connection).await }).await;
    assert!(short_timeout_app.metric("tenantry_db_statements_abandoned_total").await > Some(0.0));
    lock_transaction.rollback().await.expect("the lock is released");
}

/// N21: one subject's slow calls do not stop the administrator of its tenant.
#[tokio::test]
async fn slow_calls_of_one_subject_cannot_take_all_permits_of_its_tenant() {
    let app = TestApp::with_settings(|values| {
        values.set("MAX_REQUESTS", "160");
        values.set("DATABASE_MAX_CONNECTIONS", "40");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["user:update"]).await;
    let mut locking_connection = app.owner_connection().await;
    let mut lock_transaction = locking_connection.begin().await.expect("a transaction");
    let lock = format!("select from users where user_id = '{}' for update", ada.user_id);
    sqlx::query(sqlx::AssertSqlSafe(lock))
        .execute(&mut *lock_transaction)
        .await
        .expect("the row is locked");
    let activity_connection = Mutex::new(app.owner_connection().await);

    let rename = || {
        let request = UpdateUserRequest {
            user_id: ada.user_id.clone(),
            display_name: Some("Ada".into()),
            ..UpdateUserRequest::default()
        };
        let mut users = ada.users();
        async move { users.update_user(request).await }
    };
    let slow_calls = join_all((0..60).map(|_| rename()));
    let other_calls = async {
        wait_until(10, || a_statement_waits_for_a_lock(&activity_connection)).await;
        // 20 of the 60 calls get permits: an eighth of 160.
        let refused_metric = "tenantry_requests_refused_total{by=\"subject\"}";
        wait_until(10, || async { app.metric(refused_metric).await >= Some(40.0) }).await;
        acme.create_role("created meanwhile", RoleLevel::Viewer, &[]).await;
        assert!(
            a_statement_waits_for_a_lock(&activity_connection).await,
            "the slow calls still wait"
        );
        lock_transaction.rollback().await.expect("the lock is released");
    };
    let (slow_calls, ()) =
        within_seconds(30, async { tokio::join!(slow_calls, other_calls) }).await;
    let completed = slow_calls.into_iter().flatten().count();
    assert_eq!(completed, 20, "a subject may have an eighth of all permits");
}
