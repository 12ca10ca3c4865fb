//! Delay until another replica decides with a change.

use std::time::{Duration, Instant};

use tenantry::proto::v1::RoleLevel;

use crate::harness::{Client, TestApp, until};

const ROUNDS: usize = 20;

/// Time until a user is denied, checked every 5 ms.
async fn until_denied(there: &Client, user: &str, taken: Instant) -> Duration {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while there.may(user, "doc:read").await {
        assert!(taken.elapsed() < Duration::from_secs(1), "{:?}", taken.elapsed());
        ticks.tick().await;
    }
    taken.elapsed()
}

/// F11
#[tokio::test]
async fn all_replicas_apply_an_unassignment_within_a_second() {
    let app = TestApp::spawn().await;
    let (second, third) =
        (TestApp::on(&app.database, |_| {}).await, TestApp::on(&app.database, |_| {}).await);
    let acme = app.tenant("acme").await;
    let (two, three) = (acme.on(&second.channel), acme.on(&third.channel));
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;

    let mut delays = Vec::new();
    for _ in 0..ROUNDS {
        acme.assign(&user, &role).await;
        until(1, || async {
            two.may(&user, "doc:read").await && three.may(&user, "doc:read").await
        })
        .await;
        acme.unassign(&user, &role).await;
        let taken = Instant::now();
        assert!(
            !acme.may(&user, "doc:read").await,
            "allowed on the replica that unassigned the role"
        );
        let (on_two, on_three) =
            tokio::join!(until_denied(&two, &user, taken), until_denied(&three, &user, taken));
        delays.extend([on_two, on_three]);
    }
    delays.sort_unstable();
    let of = |share: usize| delays[(delays.len() - 1) * share / 100];
    println!(
        "seen on the other replicas after {:?} (p50), {:?} (p95), {:?} (max)",
        of(50),
        of(95),
        of(100)
    );
}
