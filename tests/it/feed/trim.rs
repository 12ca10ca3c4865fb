//! Trimming deletes old changes from the feed. A replica that has not read a deleted change clears
//! its cache.
//!
//! A mark is a row of `change_marks`: a time, and the horizon at this time. The floor is the
//! horizon of the oldest mark. Only changes of transactions before the floor are deleted.

use sqlx::{Connection, PgConnection, PgPool};
use tenantry::proto::v1::RoleLevel;

use crate::harness::{Proxy, TestApp, wait_until, within_seconds};

/// Moves the time of all marks two hours into the past.
async fn age_marks(owner_connection: &mut PgConnection) {
    let statement = "update change_marks set recorded_at = recorded_at - interval '2 hours'";
    sqlx::query(statement).execute(owner_connection).await.expect("the marks are older");
}

/// Deletes at most `batch` changes before the newest mark that is at least an hour old. Returns the
/// number of deleted changes, or `None` while another transaction trims.
async fn trim(pool: &PgPool, batch: i64) -> Option<i64> {
    let statement = "select trim_changes('1 hour', $1)";
    sqlx::query_scalar(statement).bind(batch).fetch_one(pool).await.expect("trimmed")
}

async fn count(owner_connection: &mut PgConnection, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(owner_connection).await.expect("a count")
}

async fn insert_change(conn: &mut PgConnection) {
    let statement = "insert into changes (tenant_id, kind, subject_id)
                     values (gen_random_uuid(), 'user', gen_random_uuid())";
    sqlx::query(statement).execute(conn).await.expect("a change");
}

/// Reads the feed since `snapshot`. Returns the current snapshot, whether changes may be
/// missing, and the number of changes.
async fn read_changes(pool: &PgPool, snapshot: Option<&str>) -> (String, bool, i64) {
    let query = "select min(snapshot::text), bool_or(missed), count(subject_id)
                 from read_changes($1::text::pg_snapshot)";
    sqlx::query_as(query).bind(snapshot).fetch_one(pool).await.expect("changes")
}

#[tokio::test]
async fn changes_are_trimmed_after_all_replicas_had_time_to_read_them() {
    let app = TestApp::spawn().await;
    let (mut owner_connection, pool) = (app.owner_connection().await, app.app_role_pool().await);
    let changes = "select count(*) from changes";
    for _ in 0..5 {
        insert_change(&mut owner_connection).await;
    }
    app.wait_until_changes_settled().await;
    assert_eq!(trim(&pool, 100).await, Some(0), "no mark is old enough");
    let (snapshot_before, ..) = read_changes(&pool, None).await;
    age_marks(&mut owner_connection).await;
    insert_change(&mut owner_connection).await;
    app.wait_until_changes_settled().await;

    // A trim deletes one batch. Changes after the old mark stay.
    assert_eq!(trim(&pool, 3).await, Some(3));
    assert_eq!(trim(&pool, 3).await, Some(2));
    assert_eq!(trim(&pool, 3).await, Some(0));
    assert_eq!(count(&mut owner_connection, changes).await, 1);
    // A reader that read after the mark was made has missed no change.
    let (current_snapshot, missed, delivered) = read_changes(&pool, Some(&snapshot_before)).await;
    assert_eq!((missed, delivered), (false, 1));

    // Of the marks that are older than an hour, only the newest mark is kept.
    age_marks(&mut owner_connection).await;
    trim(&pool, 100).await;
    assert_eq!(count(&mut owner_connection, changes).await, 0);
    let count_old_marks =
        "select count(*) from change_marks where recorded_at < now() - interval '1 hour'";
    assert_eq!(count(&mut owner_connection, count_old_marks).await, 1);
    let (_, missed, _) = read_changes(&pool, Some(&current_snapshot)).await;
    assert!(!missed);
    let (_, missed, _) = read_changes(&pool, Some("3:3:")).await;
    assert!(missed, "the snapshot is before the floor");
}

#[tokio::test]
async fn a_long_transactions_changes_are_not_trimmed() {
    let app = TestApp::spawn().await;
    let (mut owner_connection, pool) = (app.owner_connection().await, app.app_role_pool().await);
    let mut slow_connection = app.owner_connection().await;
    let mut open_transaction = slow_connection.begin().await.expect("begun");
    insert_change(&mut open_transaction).await;
    trim(&pool, 100).await;
    let (snapshot_before, ..) = read_changes(&pool, None).await;
    age_marks(&mut owner_connection).await;
    open_transaction.commit().await.expect("committed");
    trim(&pool, 100).await;
    let (_, missed, delivered) = read_changes(&pool, Some(&snapshot_before)).await;
    assert_eq!((missed, delivered), (false, 1));
}

#[tokio::test]
async fn concurrent_trims_and_deletions_of_new_changes_are_prevented() {
    let app = TestApp::spawn().await;
    let (mut owner_connection, pool) = (app.owner_connection().await, app.app_role_pool().await);
    let mut tx = owner_connection.begin().await.expect("begun");
    let trimming = "select trim_changes('1 hour', 100)";
    sqlx::query(trimming).execute(&mut *tx).await.expect("trimmed");
    assert_eq!(trim(&pool, 100).await, None, "another transaction is trimming");
    tx.rollback().await.expect("rolled back");

    insert_change(&mut owner_connection).await;
    let mut tx = owner_connection.begin().await.expect("begun");
    // This role may execute `delete`, but a row policy excludes new changes.
    sqlx::query("set local role tenantry_lookup").execute(&mut *tx).await.expect("set");
    let delete_result = sqlx::query("delete from changes")
        .execute(&mut *tx)
        .await
        .expect("the statement is allowed");
    assert_eq!(delete_result.rows_affected(), 0);
}

/// A snapshot with later transaction ids than the current ids comes from another server, or from a
/// server that lost its last commits.
#[tokio::test]
async fn a_snapshot_from_the_future_is_reported_as_missed_changes() {
    let app = TestApp::spawn().await;
    let pool = app.app_role_pool().await;
    let (_, missed, _) = read_changes(&pool, Some("900000000:900000000:")).await;
    assert!(missed);
}

/// F12: older cache entries are not used, although the change never arrives.
#[tokio::test]
async fn a_replica_that_missed_a_trimmed_change_clears_its_cache() {
    let proxy = Proxy::postgres().await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let url = proxy.postgres_url(&app.database);
    let second_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = acme.on_server(&second_replica.channel);
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&user, &role).await;
    wait_until(2, || replica_client.user_may(&user, "doc:read")).await;

    // The replica receives nothing while the role is unassigned and that change is trimmed.
    proxy.hold();
    acme.unassign(&user, &role).await;
    let (mut owner_connection, pool) = (app.owner_connection().await, app.app_role_pool().await);
    // Open transactions of the replica end at their timeout.
    within_seconds(30, async {
        while count(&mut owner_connection, "select count(*) from changes").await > 0 {
            trim(&pool, 1000).await;
            age_marks(&mut owner_connection).await;
            trim(&pool, 1000).await;
        }
    })
    .await;
    proxy.pass();

    // The change was trimmed, so the replica only learns that it may have missed a change.
    let request = || tenantry::proto::v1::CheckRequest {
        user_id: user.clone(),
        permission: "doc:read".into(),
        ..Default::default()
    };
    let is_denied = || async {
        replica_client
            .permissions()
            .check(request())
            .await
            .is_ok_and(|reply| !reply.into_inner().allowed)
    };
    wait_until(10, is_denied).await;
}
