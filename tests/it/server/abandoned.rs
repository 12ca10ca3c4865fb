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
async fn none_waits(owner: &Mutex<sqlx::PgConnection>) -> bool {
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
async fn hold_acme(holder: &mut sqlx::PgConnection) -> sqlx::Transaction<'_, sqlx::Postgres> {
    let mut held = holder.begin().await.expect("begun");
    let lock = "select from tenants where slug = 'acme' for update";
    sqlx::query(lock).execute(&mut *held).await.expect("held");
    held
}

/// N22
#[tokio::test]
async fn a_tenants_slow_calls_leave_connections_to_others_and_end_at_their_deadline() {
    let app = TestApp::with(|values| values.set("REQUEST_TIMEOUT", "10s")).await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let mut holder = app.owner().await;
    let held = hold_acme(&mut holder).await;
    let owner = Mutex::new(app.owner().await);

    let slow = join_all((0..30).map(|_| rename(&acme, "Acme")));
    let others = async {
        until(10, || async { !none_waits(&owner).await }).await;
        for _ in 0..10 {
            other.tenants().get_tenant(GetTenantRequest::default()).await.expect("read");
            rename(&other, "Other").await.expect("written");
        }
        assert!(!none_waits(&owner).await, "the slow calls still wait");
    };
    let (slow, ()) = within(30, async { tokio::join!(slow, others) }).await;
    let mut ended = 0;
    for reply in slow {
        match reply.expect_err("the row is held").code() {
            Code::DeadlineExceeded => ended += 1,
            Code::ResourceExhausted => {}
            code => panic!("{code:?}"),
        }
    }
    assert!(ended > 0, "no call that waited for the row ended");
    // Sooner than any timeout of Postgres itself.
    until(3, || none_waits(&owner)).await;
    held.rollback().await.expect("let go");
    until(10, || async { rename(&acme, "Acme").await.is_ok() }).await;
}

/// N22: the places for calls in progress are shared among tenants, like connections.
#[tokio::test]
async fn a_tenants_slow_calls_leave_places_for_other_tenants() {
    let app = TestApp::with(|values| values.set("MAX_REQUESTS", "12")).await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let mut holder = app.owner().await;
    let held = hold_acme(&mut holder).await;
    let owner = Mutex::new(app.owner().await);

    let slow = join_all((0..12).map(|_| rename(&acme, "Acme")));
    let others = async {
        until(10, || async { !none_waits(&owner).await }).await;
        for _ in 0..10 {
            rename(&other, "Other").await.expect("written");
        }
        held.rollback().await.expect("let go");
    };
    let (slow, ()) = within(30, async { tokio::join!(slow, others) }).await;
    let refusals: Vec<_> = slow.into_iter().filter_map(Result::err).collect();
    assert!(refusals.len() >= 6, "more than half of all places are one tenant's: {refusals:?}");
    for status in refusals {
        refused(Err::<tonic::Response<()>, _>(status), Code::ResourceExhausted, "OVERLOADED");
    }
    let mut refused = 0.0;
    for by in ["owner", "subject"] {
        let name = format!("tenantry_requests_refused_total{{by=\"{by}\"}}");
        refused += app.metric(&name).await.expect("it is counted");
    }
    assert!(refused >= 6.0, "{refused}");
}

/// N22
#[tokio::test]
async fn a_tenant_above_its_share_of_connections_is_told_when_to_retry() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut holder = app.owner().await;
    let held = hold_acme(&mut holder).await;
    let refusals = "tenantry_db_share_refused_total";
    assert_eq!(app.metric(refusals).await, Some(0.0));

    let slow = join_all((0..8).map(|_| rename(&acme, "Acme")));
    let let_go = async {
        until(10, || async { app.metric(refusals).await > Some(0.0) }).await;
        held.rollback().await.expect("let go");
    };
    let (slow, ()) = within(30, async { tokio::join!(slow, let_go) }).await;
    let told = slow.into_iter().filter_map(Result::err);
    let told: Vec<_> = told.filter(|status| status.code() == Code::ResourceExhausted).collect();
    assert!(!told.is_empty());
    for status in told {
        let status =
            refused(Err::<tonic::Response<()>, _>(status), Code::ResourceExhausted, "OVERLOADED");
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    }
}

/// N22: a statement outside a transaction.
#[tokio::test]
async fn the_statement_of_a_timed_out_decision_ends_in_postgres() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut holder = app.owner().await;
    let mut held = holder.begin().await.expect("begun");
    let lock = "lock table role_assignments in access exclusive mode";
    sqlx::query(lock).execute(&mut *held).await.expect("held");
    let owner = Mutex::new(app.owner().await);

    let hasty = TestApp::on(&app.database, |values| values.set("REQUEST_TIMEOUT", "500ms")).await;
    let check = CheckRequest {
        permission: "user:read".into(),
        consistency: Consistency::FullyConsistent.into(),
        ..CheckRequest::default()
    };
    let reply = acme.on(&hasty.channel).permissions().check(check).await;
    refused(reply, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    // Sooner than any timeout of Postgres itself.
    until(3, || none_waits(&owner)).await;
    assert!(hasty.metric("tenantry_db_statements_abandoned_total").await > Some(0.0));
    held.rollback().await.expect("let go");
}

/// N21: one subject's slow calls do not stop the administrator of its tenant.
#[tokio::test]
async fn a_subjects_slow_calls_leave_places_for_others_of_its_tenant() {
    let app = TestApp::with(|values| {
        values.set("MAX_REQUESTS", "160");
        values.set("DATABASE_MAX_CONNECTIONS", "40");
    })
    .await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["user:update"]).await;
    let mut holder = app.owner().await;
    let mut held = holder.begin().await.expect("begun");
    let lock = format!("select from users where user_id = '{}' for update", ada.user_id);
    sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *held).await.expect("held");
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
    let slow = join_all((0..60).map(|_| rename()));
    let others = async {
        until(10, || async { !none_waits(&owner).await }).await;
        let refused = "tenantry_requests_refused_total{by=\"subject\"}";
        until(10, || async { app.metric(refused).await >= Some(40.0) }).await;
        acme.create_role("made meanwhile", RoleLevel::Viewer, &[]).await;
        assert!(!none_waits(&owner).await, "the slow calls still wait");
        held.rollback().await.expect("released");
    };
    let (slow, ()) = within(30, async { tokio::join!(slow, others) }).await;
    let done = slow.into_iter().flatten().count();
    assert_eq!(done, 20, "a subject may have an eighth of all calls");
}
