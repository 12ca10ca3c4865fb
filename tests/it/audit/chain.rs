//! Positions in the audit chain. The sealer, a background worker, seals events: it gives each event
//! of a tenant the next position. One replica at a time seals.

use futures::future::join_all;
use tenantry::{config::Values, proto::v1::RoleLevel};

use super::events_oldest_first;
use crate::harness::{Client, Fault, Proxy, TestApp, wait_until};

/// Number of events of a new tenant: `tenant_created`, `user_registered` and `signed_in`.
const INITIAL_EVENTS: i64 = 3;

/// Waits until all events have positions. Asserts that the tenant has `added` events besides
/// [`INITIAL_EVENTS`], and that their positions run from 1 without gaps.
async fn assert_no_gaps(admin: &Client, app: &TestApp, added: i64) {
    app.wait_until_audit_settled().await;
    let mut positions: Vec<_> =
        events_oldest_first(admin, "").await.iter().map(|event| event.position).collect();
    positions.sort_unstable();
    let expected: Vec<_> = (1..=INITIAL_EVENTS + added).collect();
    assert_eq!(positions, expected);
}

async fn create_roles(admin: &Client, prefix: &str, count: usize) {
    let create = |n| async move {
        admin.create_role(&format!("{prefix}-{n}"), RoleLevel::Member, &[]).await;
    };
    join_all((0..count).map(create)).await;
}

#[tokio::test]
async fn concurrent_writers_on_two_replicas_leave_no_gap() {
    // With the default of 4 connections in tests, the 100 writers could time out on a busy machine.
    let set_connections = |values: &mut Values| values.set("DATABASE_MAX_CONNECTIONS", "40");
    let app = TestApp::with_settings(set_connections).await;
    let second_replica = TestApp::on_database(&app.database, set_connections).await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let replica_client = acme.on_server(&second_replica.channel);
    tokio::join!(
        create_roles(&acme, "here", 40),
        create_roles(&replica_client, "there", 40),
        create_roles(&other, "other", 20),
    );
    assert_no_gaps(&acme, &app, 80).await;
    assert_no_gaps(&other, &app, 20).await;
}

/// An event gets its position after its commit, so the sealer misses no event whose transaction
/// commits late.
#[tokio::test]
async fn an_event_committed_late_gets_the_next_position() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    let mut late_transaction = sqlx::Connection::begin(&mut owner_connection).await.expect("begun");
    sqlx::query(
        "insert into audit_events (tenant_id, event_id, kind, request_id)
         values ($1::uuid, gen_random_uuid(), 'late', '')",
    )
    .bind(&acme.tenant_id)
    .execute(&mut *late_transaction)
    .await
    .expect("the event is inserted");
    create_roles(&acme, "early", 3).await;
    let three_have_positions = |filter: &'static str| {
        let acme = acme.clone();
        async move {
            let events = events_oldest_first(&acme, filter).await;
            events.len() == 3 && events.iter().all(|event| event.position > 0)
        }
    };
    wait_until(10, || three_have_positions("kind = role_created")).await;
    late_transaction.commit().await.expect("committed");
    // The three roles and the late event.
    assert_no_gaps(&acme, &app, 4).await;
    let all_events = events_oldest_first(&acme, "").await;
    let last_event = all_events.iter().max_by_key(|event| event.position).expect("events");
    assert_eq!(last_event.kind, "late");
}

/// I08: when a replica loses its connection while it seals or sends events, the chain stays
/// complete.
#[tokio::test]
async fn a_lost_connection_of_the_audit_workers_leaves_no_gap() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    let database = app.database.clone();
    app.stop().await;
    // Each round adds one event.
    for (round, (statement, fault)) in (1..).zip([
        ("read_unsealed", Fault::Cut),
        ("seal_events", Fault::Cut),
        ("seal_events", Fault::HoldReplies),
        ("read_outbox", Fault::Cut),
        ("mark_published", Fault::Cut),
        ("mark_published", Fault::HoldReplies),
    ]) {
        let proxy = Proxy::postgres().await;
        let url = proxy.postgres_url(&database);
        let replica =
            TestApp::on_database(&database, |values| values.set("DATABASE_URL", url)).await;
        proxy.fault_when_sent(statement, fault);
        let replica_client = acme.on_server(&replica.channel);
        replica_client.create_role(&format!("role-{round}"), RoleLevel::Member, &[]).await;
        if fault == Fault::HoldReplies {
            proxy.wait_until_held().await;
            proxy.cut();
        } else {
            wait_until(10, || async { proxy.is_cut() }).await;
        }
        proxy.pass();
        assert_no_gaps(&replica_client, &replica, round).await;
        replica.stop().await;
    }
}

/// A replica that hangs while it seals delays other replicas only until the idle timeout of its
/// open transaction.
#[tokio::test]
async fn a_hanging_sealer_delays_the_next_sealer_only_until_its_idle_timeout() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    let database = app.database.clone();
    app.stop().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&database);
    let hanging_replica =
        TestApp::on_database(&database, |values| values.set("DATABASE_URL", url)).await;
    proxy.fault_when_sent("seal_events", Fault::Hold);
    acme.on_server(&hanging_replica.channel).create_role("ops", RoleLevel::Member, &[]).await;
    proxy.wait_until_held().await;
    let other_replica = TestApp::on_database(&database, |_| {}).await;
    let is_sealed = || async {
        let events =
            events_oldest_first(&acme.on_server(&other_replica.channel), "kind = role_created")
                .await;
        events.len() == 1 && events[0].position > 0
    };
    wait_until(30, is_sealed).await;
}
