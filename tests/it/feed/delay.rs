//! Delay until another replica applies a change.

use std::time::{Duration, Instant};

use tenantry::proto::v1::RoleLevel;

use crate::harness::{Client, TestApp, wait_until};

const ROUNDS: usize = 20;

/// Time from the unassignment until the user is denied. Asks every 5 ms.
async fn time_until_denied(client: &Client, user: &str, unassigned_at: Instant) -> Duration {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while client.user_may(user, "doc:read").await {
        assert!(unassigned_at.elapsed() < Duration::from_secs(1), "{:?}", unassigned_at.elapsed());
        ticks.tick().await;
    }
    unassigned_at.elapsed()
}

/// F11: every replica applies an unassignment within one second.
#[tokio::test]
async fn all_replicas_apply_an_unassignment_within_a_second() {
    let app = TestApp::spawn().await;
    let (second_replica, third_replica) = (
        TestApp::on_database(&app.database, |_| {}).await,
        TestApp::on_database(&app.database, |_| {}).await,
    );
    let acme = app.create_tenant("acme").await;
    let (second_client, third_client) =
        (acme.on_server(&second_replica.channel), acme.on_server(&third_replica.channel));
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;

    let mut delays = Vec::new();
    for _ in 0..ROUNDS {
        acme.assign(&user, &role).await;
        wait_until(1, || async {
            second_client.user_may(&user, "doc:read").await
                && third_client.user_may(&user, "doc:read").await
        })
        .await;
        acme.unassign(&user, &role).await;
        let unassigned_at = Instant::now();
        assert!(
            !acme.user_may(&user, "doc:read").await,
            "allowed on the replica that unassigned the role"
        );
        let (second_delay, third_delay) = tokio::join!(
            time_until_denied(&second_client, &user, unassigned_at),
            time_until_denied(&third_client, &user, unassigned_at)
        );
        delays.extend([second_delay, third_delay]);
    }
    delays.sort_unstable();
    let percentile = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "applied on the other replicas after {:?} (p50), {:?} (p95), {:?} (max)",
        percentile(50),
        percentile(95),
        percentile(100)
    );
}
