//! The feed reader misses no commit, in any order of commits.

use sqlx::{Connection, PgConnection, Row};
use tenantry::proto::v1::RoleLevel;

use crate::harness::{Client, TestApp, wait_until};

/// A server with a tenant, a role that permits `doc:read`, and users without a role.
struct Fixture {
    app: TestApp,
    acme: Client,
    role: String,
    users: Vec<String>,
}

async fn create_fixture(user_count: usize) -> Fixture {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut users = Vec::new();
    for n in 0..user_count {
        users.push(acme.create_user_without_password(&format!("u{n}@acme.test")).await);
    }
    Fixture { app, acme, role, users }
}

impl Fixture {
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
        wait_until(1, || async { self.acme.user_may(user, "doc:read").await == expected }).await;
    }
}

#[tokio::test]
async fn a_transaction_that_begins_first_and_commits_last_is_not_missed() {
    let fixture = create_fixture(2).await;
    let [first_user, second_user] = [&fixture.users[0], &fixture.users[1]];
    let (mut first_connection, mut second_connection) =
        (fixture.app.owner_connection().await, fixture.app.owner_connection().await);
    // Both users are in the cache before the changes.
    fixture.wait_for_decision(first_user, false).await;
    fixture.wait_for_decision(second_user, false).await;

    let mut first_transaction = first_connection.begin().await.expect("begun");
    fixture.change_assignment(&mut first_transaction, first_user, true).await;
    fixture.change_assignment(&mut second_connection, second_user, true).await;
    // The open first transaction does not delay the change of the second user.
    fixture.wait_for_decision(second_user, true).await;
    assert!(
        !fixture.acme.user_may(first_user, "doc:read").await,
        "the first change is not committed"
    );
    first_transaction.commit().await.expect("committed");
    fixture.wait_for_decision(first_user, true).await;
}

#[tokio::test]
async fn concurrent_writers_and_one_slow_transaction_lose_no_change() {
    const WRITERS: usize = 6;
    const CHANGES: usize = 60;
    let fixture = create_fixture(WRITERS).await;
    for user in &fixture.users {
        fixture.wait_for_decision(user, false).await;
    }
    let mut slow_connection = fixture.app.owner_connection().await;
    let mut open_transaction = slow_connection.begin().await.expect("begun");
    // Assigns a transaction id, so the horizon cannot advance while the transaction is open.
    sqlx::query("select pg_current_xact_id()")
        .fetch_one(&mut *open_transaction)
        .await
        .expect("an id");

    let writers = fixture.users.iter().enumerate().map(|(n, user)| {
        let fixture = &fixture;
        async move {
            let mut conn = fixture.app.owner_connection().await;
            for change in 0..CHANGES {
                let mut tx = conn.begin().await.expect("begun");
                fixture.change_assignment(&mut tx, user, (change + n) % 2 == 0).await;
                // Every fifth transaction is rolled back.
                if (change * 7 + n) % 5 == 0 {
                    tx.rollback().await.expect("rolled back");
                } else {
                    tx.commit().await.expect("committed");
                }
                // This read may be cached while the next change commits.
                fixture.acme.user_may(user, "doc:read").await;
            }
        }
    });
    futures::future::join_all(writers).await;
    open_transaction.rollback().await.expect("rolled back");

    let mut owner_connection = fixture.app.owner_connection().await;
    for user in &fixture.users {
        let row =
            sqlx::query("select exists (select from role_assignments where user_id = $1::uuid)")
                .bind(user)
                .fetch_one(&mut owner_connection)
                .await
                .expect("the stored state");
        fixture.wait_for_decision(user, row.get(0)).await;
    }
}
