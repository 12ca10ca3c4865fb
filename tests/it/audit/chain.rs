//! Positions in the audit chain: each event of a tenant gets the next position, on every replica
//! that seals the event.

use futures::future::join_all;
use tenantry::{config::Values, proto::v1::RoleLevel};

use super::events;
use crate::harness::{Client, Proxy, TestApp, Then, until};

/// Number of events of a tenant's registration and of its administrator's first sign-in.
const AT_FIRST: i64 = 3;

/// Asserts that the tenant has `more` events after the first events, and that the positions of all
/// events run from 1 without gaps.
async fn assert_no_gaps(of: &Client, app: &TestApp, more: i64) {
    app.audit_settled().await;
    let mut places: Vec<_> = events(of, "").await.iter().map(|event| event.position).collect();
    places.sort_unstable();
    let expected: Vec<_> = (1..=AT_FIRST + more).collect();
    assert_eq!(places, expected);
}

async fn create_roles(by: &Client, prefix: &str, count: usize) {
    let create = |n| async move {
        by.create_role(&format!("{prefix}-{n}"), RoleLevel::Member, &[]).await;
    };
    join_all((0..count).map(create)).await;
}

#[tokio::test]
async fn concurrent_writers_on_two_replicas_leave_no_gap() {
    // With the default number of connections, so many writers would time out on a busy machine.
    let connections = |values: &mut Values| values.set("DATABASE_MAX_CONNECTIONS", "40");
    let app = TestApp::with(connections).await;
    let second_replica = TestApp::on(&app.database, connections).await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let replica_client = acme.on(&second_replica.channel);
    tokio::join!(
        create_roles(&acme, "here", 40),
        create_roles(&replica_client, "there", 40),
        create_roles(&other, "other", 20),
    );
    assert_no_gaps(&acme, &app, 80).await;
    assert_no_gaps(&other, &app, 20).await;
}

/// A transaction that commits late gets a late position, so the sealer misses no event.
#[tokio::test]
async fn an_event_committed_late_gets_the_next_position() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let mut owner = app.owner().await;
    let mut late = sqlx::Connection::begin(&mut owner).await.expect("begun");
    sqlx::query(
        "insert into audit_events (tenant_id, event_id, kind, request_id)
         values ($1::uuid, gen_random_uuid(), 'late', '')",
    )
    .bind(&acme.tenant_id)
    .execute(&mut *late)
    .await
    .expect("an event");
    create_roles(&acme, "early", 3).await;
    let has_place = |kind: &'static str| {
        let acme = acme.clone();
        async move {
            let events = events(&acme, kind).await;
            events.len() == 3 && events.iter().all(|event| event.position > 0)
        }
    };
    until(10, || has_place("kind = role_created")).await;
    late.commit().await.expect("committed");
    assert_no_gaps(&acme, &app, 4).await;
    let all = events(&acme, "").await;
    let last = all.iter().max_by_key(|event| event.position).expect("events");
    assert_eq!(last.kind, "late");
}

/// I08: when the sealer's connection ends at any step, the next sealer continues.
#[tokio::test]
async fn a_sealer_cut_off_at_any_step_leaves_a_complete_chain() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    app.audit_settled().await;
    let database = app.database.clone();
    app.stop().await;
    for (n, (step, then)) in (1..).zip([
        ("read_unsealed", Then::Cut),
        ("seal_events", Then::Cut),
        ("seal_events", Then::HoldReplies),
        ("read_outbox", Then::Cut),
        ("mark_published", Then::Cut),
        ("mark_published", Then::HoldReplies),
    ]) {
        let proxy = Proxy::postgres().await;
        let url = proxy.postgres_url(&database);
        let cut = TestApp::on(&database, |values| values.set("DATABASE_URL", url)).await;
        proxy.when_sent(step, then);
        let replica_client = acme.on(&cut.channel);
        replica_client.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
        if then == Then::HoldReplies {
            proxy.until_held().await;
            proxy.cut();
        } else {
            until(10, || async { proxy.is_cut() }).await;
        }
        proxy.pass();
        assert_no_gaps(&replica_client, &cut, n).await;
        cut.stop().await;
    }
}

/// A replica that hangs while it seals delays other replicas only until the idle timeout of its
/// open transaction.
#[tokio::test]
async fn a_hanging_sealer_delays_others_only_until_its_idle_timeout() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    app.audit_settled().await;
    let database = app.database.clone();
    app.stop().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&database);
    let hanging = TestApp::on(&database, |values| values.set("DATABASE_URL", url)).await;
    proxy.when_sent("seal_events", Then::Hold);
    acme.on(&hanging.channel).create_role("ops", RoleLevel::Member, &[]).await;
    proxy.until_held().await;
    let other = TestApp::on(&database, |_| {}).await;
    let sealed = || async {
        let events = events(&acme.on(&other.channel), "kind = role_created").await;
        events.len() == 1 && events[0].position > 0
    };
    until(30, sealed).await;
}
