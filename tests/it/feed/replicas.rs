//! Decisions on other replicas after a change on one.

use std::time::{Duration, Instant};

use tenantry::proto::v1::{
    CheckRequest, Consistency, RoleLevel, UnassignRoleRequest, UpdateRoleRequest,
};
use tonic::Code;

use crate::harness::{Client, Proxy, TestApp, refused, until};

/// Staleness bound of `minimize_latency`.
const BOUND: Duration = Duration::from_secs(1);

/// State of Redis for the replica that must learn of a change.
#[derive(Clone, Copy, Debug)]
enum Redis {
    Up,
    Gone,
    Silent,
    /// Redis answers, but published messages do not arrive.
    Mute,
}

/// Creates a user that may read documents. Returns its id and the id of its role.
pub(super) async fn reader(admin: &Client, name: &str) -> (String, String) {
    let user = admin.create_user_without_password(&format!("{name}@acme.test")).await;
    let role = admin.create_role(name, RoleLevel::Member, &["doc:read"]).await;
    admin.assign(&user, &role).await;
    (user, role)
}

/// F11, F12
#[tokio::test]
async fn a_change_applies_within_a_second_in_every_state_of_redis() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    for redis in [Redis::Up, Redis::Gone, Redis::Silent, Redis::Mute] {
        let proxy = Proxy::redis().await;
        let url = proxy.redis_url();
        let twin = TestApp::on(&app.database, |values| values.set("REDIS_URL", url)).await;
        let there = acme.on(&twin.channel);
        match redis {
            Redis::Up => {}
            Redis::Gone => proxy.cut(),
            Redis::Silent => proxy.hold(),
            Redis::Mute => proxy.swallow_messages(),
        }
        for round in 0..5 {
            let (user, role) = reader(&acme, &format!("{redis:?}-{round}")).await;
            until(1, || there.may(&user, "doc:read")).await;
            let request =
                UnassignRoleRequest { user_id: user.clone(), role_id: role, ..Default::default() };
            acme.roles().unassign_role(request).await.expect("taken");
            assert!(
                !acme.may(&user, "doc:read").await,
                "{redis:?}: allowed on the replica that unassigned the role"
            );
            until(1, || async { !there.may(&user, "doc:read").await }).await;
        }
    }
}

#[tokio::test]
async fn a_changed_role_applies_to_all_its_holders() {
    let app = TestApp::spawn().await;
    let twin = TestApp::on(&app.database, |_| {}).await;
    let acme = app.tenant("acme").await;
    let there = acme.on(&twin.channel);
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut users = Vec::new();
    for n in 0..20 {
        let user = acme.create_user_without_password(&format!("u{n}@acme.test")).await;
        acme.assign(&user, &role).await;
        assert!(acme.may(&user, "doc:read").await);
        until(1, || there.may(&user, "doc:read")).await;
        users.push(user);
    }

    let request = UpdateRoleRequest {
        role_id: role,
        permissions: vec!["doc:write".into()],
        ..UpdateRoleRequest::default()
    };
    acme.roles().update_role(request).await.expect("changed");
    for user in &users {
        assert!(!acme.may(user, "doc:read").await && acme.may(user, "doc:write").await);
        until(1, || async { !there.may(user, "doc:read").await }).await;
        assert!(there.may(user, "doc:write").await);
    }
}

/// I01, R31
#[tokio::test]
async fn a_replica_without_postgres_decides_nothing() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let twin = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let there = acme.on(&twin.channel);
    let (user, role) = reader(&acme, "ada").await;
    until(1, || there.may(&user, "doc:read")).await;

    // Postgres answers others but not this replica, so the replica cannot know of changes.
    proxy.hold();
    acme.unassign(&user, &role).await;
    let acknowledged = Instant::now();
    let question = CheckRequest {
        user_id: user.clone(),
        permission: "doc:read".into(),
        ..CheckRequest::default()
    };
    let ask = || async { there.permissions().check(question.clone()).await };
    while acknowledged.elapsed() < BOUND {
        ask().await.ok();
    }
    for _ in 0..3 {
        refused(ask().await, Code::Unavailable, "STORE_UNAVAILABLE");
    }

    proxy.pass();
    until(20, || async { ask().await.is_ok() }).await;
    assert!(!there.may(&user, "doc:read").await);
}

#[tokio::test]
async fn a_fully_consistent_decision_sees_changes_that_the_feed_has_not_delivered() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let twin = TestApp::on(&app.database, |_| {}).await;
    for round in 0..20 {
        let (user, role) = reader(&acme, &format!("u{round}")).await;
        let question = CheckRequest {
            user_id: user.clone(),
            permission: "doc:read".into(),
            consistency: Consistency::FullyConsistent.into(),
            ..CheckRequest::default()
        };
        let there = acme.on(&twin.channel);
        assert!(there.decide(question.clone()).await.allowed);
        let request = UnassignRoleRequest { user_id: user, role_id: role, ..Default::default() };
        acme.roles().unassign_role(request).await.expect("taken");
        assert!(!there.decide(question).await.allowed);
    }
}
