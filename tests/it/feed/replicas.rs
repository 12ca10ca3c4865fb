//! Decisions on other replicas after a change on one replica.

use std::time::{Duration, Instant};

use tenantry::proto::v1::{
    CheckRequest, Consistency, RoleLevel, UnassignRoleRequest, UpdateRoleRequest,
};
use tonic::Code;

use crate::harness::{Client, Proxy, TestApp, assert_refused, wait_until};

/// Staleness bound of `minimize_latency`.
const STALENESS_BOUND: Duration = Duration::from_secs(1);

/// State of Redis for the replica that must apply a change.
#[derive(Clone, Copy, Debug)]
enum Redis {
    Up,
    Down,
    Hanging,
    /// Redis responds, but published messages do not arrive.
    WithoutMessages,
}

/// Creates a user that may read documents. Returns its id and the id of its role.
pub(super) async fn user_with_read_role(admin: &Client, name: &str) -> (String, String) {
    let user = admin.create_user_without_password(&format!("{name}@acme.test")).await;
    let role = admin.create_role(name, RoleLevel::Member, &["doc:read"]).await;
    admin.assign(&user, &role).await;
    (user, role)
}

/// F11: another replica applies the change within this bound.
/// F12: Redis may be unavailable, hang, or lose messages.
#[tokio::test]
async fn a_change_applies_within_a_second_in_every_state_of_redis() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    for redis in [Redis::Up, Redis::Down, Redis::Hanging, Redis::WithoutMessages] {
        let proxy = Proxy::redis().await;
        let url = proxy.redis_url();
        let second_replica =
            TestApp::on_database(&app.database, |values| values.set("REDIS_URL", url)).await;
        let replica_client = acme.on_server(&second_replica.channel);
        match redis {
            Redis::Up => {}
            Redis::Down => proxy.cut(),
            Redis::Hanging => proxy.hold(),
            Redis::WithoutMessages => proxy.drop_published_messages(),
        }
        for round in 0..5 {
            let (user, role) = user_with_read_role(&acme, &format!("{redis:?}-{round}")).await;
            wait_until(1, || replica_client.user_may(&user, "doc:read")).await;
            let request =
                UnassignRoleRequest { user_id: user.clone(), role_id: role, ..Default::default() };
            acme.roles().unassign_role(request).await.expect("unassigned");
            assert!(
                !acme.user_may(&user, "doc:read").await,
                "{redis:?}: allowed on the replica that unassigned the role"
            );
            wait_until(1, || async { !replica_client.user_may(&user, "doc:read").await }).await;
        }
    }
}

#[tokio::test]
async fn a_changed_role_applies_to_all_its_holders() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let replica_client = acme.on_server(&second_replica.channel);
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut users = Vec::new();
    for n in 0..20 {
        let user = acme.create_user_without_password(&format!("u{n}@acme.test")).await;
        acme.assign(&user, &role).await;
        assert!(acme.user_may(&user, "doc:read").await);
        wait_until(1, || replica_client.user_may(&user, "doc:read")).await;
        users.push(user);
    }

    let request = UpdateRoleRequest {
        role_id: role,
        permissions: vec!["doc:write".into()],
        ..UpdateRoleRequest::default()
    };
    acme.roles().update_role(request).await.expect("changed");
    for user in &users {
        assert!(!acme.user_may(user, "doc:read").await && acme.user_may(user, "doc:write").await);
        wait_until(1, || async { !replica_client.user_may(user, "doc:read").await }).await;
        assert!(replica_client.user_may(user, "doc:write").await);
    }
}

/// I01: a replica that cannot read the feed refuses decisions.
#[tokio::test]
async fn a_replica_without_postgres_decides_nothing() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = acme.on_server(&second_replica.channel);
    let (user, role) = user_with_read_role(&acme, "ada").await;
    wait_until(1, || replica_client.user_may(&user, "doc:read")).await;

    // Postgres responds to the first replica but not to this replica, which gets no changes.
    proxy.hold();
    acme.unassign(&user, &role).await;
    let unassigned_at = Instant::now();
    let request = CheckRequest {
        user_id: user.clone(),
        permission: "doc:read".into(),
        ..CheckRequest::default()
    };
    let check = || async { replica_client.permissions().check(request.clone()).await };
    // Until the bound has passed, decisions may come from the cache.
    while unassigned_at.elapsed() < STALENESS_BOUND {
        check().await.ok();
    }
    for _ in 0..3 {
        assert_refused(check().await, Code::Unavailable, "STORE_UNAVAILABLE");
    }

    proxy.pass();
    wait_until(20, || async { check().await.is_ok() }).await;
    assert!(!replica_client.user_may(&user, "doc:read").await);
}

#[tokio::test]
async fn a_fully_consistent_decision_includes_changes_that_the_feed_has_not_delivered() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    for round in 0..20 {
        let (user, role) = user_with_read_role(&acme, &format!("u{round}")).await;
        let request = CheckRequest {
            user_id: user.clone(),
            permission: "doc:read".into(),
            consistency: Consistency::FullyConsistent.into(),
            ..CheckRequest::default()
        };
        let replica_client = acme.on_server(&second_replica.channel);
        assert!(replica_client.decide(request.clone()).await.allowed);
        let unassign = UnassignRoleRequest { user_id: user, role_id: role, ..Default::default() };
        acme.roles().unassign_role(unassign).await.expect("unassigned");
        assert!(!replica_client.decide(request).await.allowed);
    }
}
