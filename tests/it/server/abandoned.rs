//! Work that continues after its call ended, and a tenant with many slow calls.

use futures::future::join_all;
use sqlx::Connection;
use tenantry::proto::v1::{
    CheckRequest, Consistency, GetTenantRequest, RoleLevel, UpdateTenantRequest, UpdateUserRequest,
};
use tokio::sync::Mutex;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Client, TestApp, refused, until, within};

/// Whether no statement of the service waits for a lock in this test's database.
async fn no_statement_waits_for_a_lock(owner: &Mutex<sqlx::PgConnection>) -> bool {
    let waiting = "select not exists (select from pg_stat_activity
                   where datname = current_database() and usename = 'tenantry_app'
                     and state <> 'idle' and wait_event_type = 'Lock')";
    let mut owner = owner.lock().await;
    sqlx::query_scalar(waiting).fetch_one(&mut *owner).await.expect("the activity")
}

async fn rename(client: &Client, name: &str) -> Result<(), tonic::Status> {
    let request = UpdateTenantRequest { name: Some(name.into()), ..UpdateTenantRequest::default() };
    client.tenants().update_tenant(request).await.map(drop)
}

/// Locks the row of the tenant acme until the transaction is rolled back.
async fn lock_acme(holder: &mut sqlx::PgConnection) -> sqlx::Transaction<'_, sqlx::Postgres> {
    let mut lock_transaction = holder.begin().await.expect("begun");
    let lock = "select from tenants where slug = 'acme' for update";
    sqlx::query(lock).execute(&mut *lock_transaction).await.expect("held");
    lock_transaction
}

/// N22: a tenant's slow calls must not take all database connections.
#[tokio::test]
async fn slow_calls_of_one_tenant_leave_connections_to_others_and_time_out() {
    let app = TestApp::with(|values| values.set("REQUEST_TIMEOUT", "4s")).await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let mut holder = app.owner().await;
    let lock_transaction = lock_acme(&mut holder).await;
    let owner = Mutex::new(app.owner().await);

    let slow_calls = join_all((0..30).map(|_| rename(&acme, "Acme")));
    let other_calls = async {
        until(10, || async { !no_statement_waits_for_a_lock(&owner).await }).await;
        for _ in 0..5 {
            other.tenants().get_tenant(GetTenantRequest::default()).await.expect("read");
            rename(&other, "Other").await.expect("written");
        }
        assert!(!no_statement_waits_for_a_lock(&owner).await, "the slow calls still wait");
    };
    let (slow_calls, ()) = within(30, async { tokio::join!(slow_calls, other_calls) }).await;
    let mut timed_out = 0;
    for reply in slow_calls {
        match reply.expect_err("the row is held").code() {
            Code::DeadlineExceeded => timed_out += 1,
            Code::ResourceExhausted => {}
            code => panic!("{code:?}"),
        }
    }
    assert!(timed_out > 0, "no call that waited for the row timed out");
    // 3 s is shorter than every timeout of Postgres itself.
    until(3, || no_statement_waits_for_a_lock(&owner)).await;
    lock_transaction.rollback().await.expect("let go");
    until(10, || async { rename(&acme, "Acme").await.is_ok() }).await;
}

/// N22: the permits for calls in progress are shared among tenants, like connections.
#[tokio::test]
async fn slow_calls_of_one_tenant_leave_permits_for_other_tenants() {
    let app = TestApp::with(|values| values.set("MAX_REQUESTS", "12")).await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let mut holder = app.owner().await;
    let lock_transaction = lock_acme(&mut holder).await;
    let owner = Mutex::new(app.owner().await);

    let slow_calls = join_all((0..12).map(|_| rename(&acme, "Acme")));
    let other_calls = async {
        until(10, || async { !no_statement_waits_for_a_lock(&owner).await }).await;
        for _ in 0..10 {
            rename(&other, "Other").await.expect("written");
        }
        lock_transaction.rollback().await.expect("let go");
    };
    let (slow_calls, ()) = within(30, async { tokio::join!(slow_calls, other_calls) }).await;
    let refusals: Vec<_> = slow_calls.into_iter().filter_map(Result::err).collect();
    assert!(refusals.len() >= 6, "one tenant got more than half of all permits: {refusals:?}");
    for status in refusals {
        refused(Err::<tonic::Response<()>, _>(status), Code::ResourceExhausted, "OVERLOADED");
    }
    let mut refused = 0.0;
    for limit in ["owner", "subject"] {
        let name = format!("tenantry_requests_refused_total{{by=\"{limit}\"}}");
        refused += app.metric(&name).await.expect("the metric exists");
    }
    assert!(refused >= 6.0, "{refused}");
}

/// N22: the refusal of a call for lack of connections carries a retry delay.
#[tokio::test]
async fn a_refusal_above_the_share_of_connections_has_a_retry_delay() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut holder = app.owner().await;
    let lock_transaction = lock_acme(&mut holder).await;
    let refused_total = "tenantry_db_share_refused_total";
    assert_eq!(app.metric(refused_total).await, Some(0.0));

    let slow_calls = join_all((0..8).map(|_| rename(&acme, "Acme")));
    let release = async {
        until(10, || async { app.metric(refused_total).await > Some(0.0) }).await;
        lock_transaction.rollback().await.expect("let go");
    };
    let (slow_calls, ()) = within(30, async { tokio::join!(slow_calls, release) }).await;
    let errors = slow_calls.into_iter().filter_map(Result::err);
    let refusals: Vec<_> =
        errors.filter(|status| status.code() == Code::ResourceExhausted).collect();
    assert!(!refusals.is_empty());
    for status in refusals {
        let status =
            refused(Err::<tonic::Response<()>, _>(status), Code::ResourceExhausted, "OVERLOADED");
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    }
}

/// N22: a statement outside a transaction.
#[tokio::test]
async fn the_statement_of_a_timed_out_check_is_cancelled_in_postgres() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut holder = app.owner().await;
    let mut lock_transaction = holder.begin().await.expect("begun");
    let lock = "lock table role_assignments in access exclusive mode";
    sqlx::query(lock).execute(&mut *lock_transaction).await.expect("held");
    let owner = Mutex::new(app.owner().await);

    let short_timeout_app =
        TestApp::on(&app.database, |values| values.set("REQUEST_TIMEOUT", "500ms")).await;
    let check = CheckRequest {
        permission: "user:read".into(),
        consistency: Consistency::FullyConsistent.into(),
        ..CheckRequest::default()
    };
    let reply = acme.on(&short_timeout_app.channel).permissions().check(check).await;
    refused(reply, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    // 3 s is shorter than every timeout of Postgres itself.
    until(3, || no_statement_waits_for_a_lock(&owner)).await;
    assert!(short_timeout_app.metric("tenantry_db_statements_abandoned_total").await > Some(0.0));
    lock_transaction.rollback().await.expect("let go");
}

/// N21: one subject's slow calls do not stop the administrator of its tenant.
#[tokio::test]
async fn slow_calls_of_one_subject_leave_permits_for_its_tenant() {
    let app = TestApp::with(|values| {
        values.set("MAX_REQUESTS", "160");
        values.set("DATABASE_MAX_CONNECTIONS", "40");
    })
    .await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["user:update"]).await;
    let mut holder = app.owner().await;
    let mut lock_transaction = holder.begin().await.expect("begun");
    let lock = format!("select from users where user_id = '{}' for update", ada.user_id);
    sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *lock_transaction).await.expect("held");
    let owner = Mutex::new(app.owner().await);

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
        until(10, || async { !no_statement_waits_for_a_lock(&owner).await }).await;
        let refused = "tenantry_requests_refused_total{by=\"subject\"}";
        until(10, || async { app.metric(refused).await >= Some(40.0) }).await;
        acme.create_role("made meanwhile", RoleLevel::Viewer, &[]).await;
        assert!(!no_statement_waits_for_a_lock(&owner).await, "the slow calls still wait");
        lock_transaction.rollback().await.expect("released");
    };
    let (slow_calls, ()) = within(30, async { tokio::join!(slow_calls, other_calls) }).await;
    let completed = slow_calls.into_iter().flatten().count();
    assert_eq!(completed, 20, "a subject may hold an eighth of all permits");
}
