//! The feed reader misses no commit, in any order of commits.

use sqlx::{Connection, PgConnection, Row};
use tenantry::proto::v1::RoleLevel;

use crate::harness::{Client, TestApp, until};

struct World {
    app: TestApp,
    acme: Client,
    role: String,
    users: Vec<String>,
}

async fn world(users: usize) -> World {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut ids = Vec::new();
    for n in 0..users {
        ids.push(acme.create_user_without_password(&format!("u{n}@acme.test")).await);
    }
    World { app, acme, role, users: ids }
}

impl World {
    /// Assigns or unassigns the role by SQL, so that replicas get the change only through the
    /// feed.
    async fn change_assignment(&self, conn: &mut PgConnection, user: &str, has_role: bool) {
        let statement = if has_role {
            "insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
             values ($1::uuid, gen_random_uuid(), $2::uuid, $3::uuid)
             on conflict do nothing"
        } else {
            "delete from role_assignments
             where tenant_id = $1::uuid and user_id = $2::uuid and role_id = $3::uuid"
        };
        sqlx::query(statement)
            .bind(&self.acme.tenant_id)
            .bind(user)
            .bind(&self.role)
            .execute(conn)
            .await
            .expect("changed");
    }

    async fn wait_for_decision(&self, user: &str, expected: bool) {
        until(1, || async { self.acme.may(user, "doc:read").await == expected }).await;
    }
}

#[tokio::test]
async fn a_transaction_that_begins_first_and_commits_last_is_seen() {
    let world = world(2).await;
    let [early, late] = [&world.users[0], &world.users[1]];
    let (mut first_connection, mut second_connection) =
        (world.app.owner().await, world.app.owner().await);
    // Both users are in the cache before the changes.
    world.wait_for_decision(early, false).await;
    world.wait_for_decision(late, false).await;

    let mut first = first_connection.begin().await.expect("begun");
    world.change_assignment(&mut first, early, true).await;
    world.change_assignment(&mut second_connection, late, true).await;
    // The older open transaction does not hide the commit of the younger transaction.
    world.wait_for_decision(late, true).await;
    assert!(!world.acme.may(early, "doc:read").await, "not committed");
    first.commit().await.expect("committed");
    world.wait_for_decision(early, true).await;
}

#[tokio::test]
async fn concurrent_writers_and_one_slow_transaction_lose_no_change() {
    const WRITERS: usize = 6;
    const CHANGES: usize = 60;
    let world = world(WRITERS).await;
    for user in &world.users {
        world.wait_for_decision(user, false).await;
    }
    let mut slow_connection = world.app.owner().await;
    let mut open_transaction = slow_connection.begin().await.expect("begun");
    sqlx::query("select pg_current_xact_id()")
        .fetch_one(&mut *open_transaction)
        .await
        .expect("an id");

    let writers = world.users.iter().enumerate().map(|(n, user)| {
        let world = &world;
        async move {
            let mut conn = world.app.owner().await;
            for change in 0..CHANGES {
                let mut tx = conn.begin().await.expect("begun");
                world.change_assignment(&mut tx, user, (change + n) % 2 == 0).await;
                if (change * 7 + n) % 5 == 0 {
                    tx.rollback().await.expect("undone");
                } else {
                    tx.commit().await.expect("committed");
                }
                // This read may be cached while the next change commits.
                world.acme.may(user, "doc:read").await;
            }
        }
    });
    futures::future::join_all(writers).await;
    open_transaction.rollback().await.expect("ended");

    let mut owner = world.app.owner().await;
    for user in &world.users {
        let row =
            sqlx::query("select exists (select from role_assignments where user_id = $1::uuid)")
                .bind(user)
                .fetch_one(&mut owner)
                .await
                .expect("the stored state");
        world.wait_for_decision(user, row.get(0)).await;
    }
}
