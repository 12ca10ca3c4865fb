//! `read_changes` delivers each commit exactly once, while many writers commit in any order.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::TestApp;

/// Reads the feed as the follower does.
struct Reader {
    pool: PgPool,
    /// The snapshot of the last read.
    snapshot: Option<String>,
    /// Number of times that each change was delivered.
    delivered: BTreeMap<Uuid, u32>,
}

impl Reader {
    async fn read(&mut self) {
        let rows: Vec<(String, bool, Option<Uuid>)> = sqlx::query_as(
            "select snapshot::text, missed, subject_id from read_changes($1::text::pg_snapshot)",
        )
        .bind(&self.snapshot)
        .fetch_all(&self.pool)
        .await
        .expect("changes");
        for (snapshot, missed, subject) in rows {
            assert!(!missed);
            self.snapshot = Some(snapshot);
            if let Some(subject) = subject {
                *self.delivered.entry(subject).or_default() += 1;
            }
        }
    }
}

/// A linear congruential generator (Knuth's MMIX).
struct Rng(u64);

impl Rng {
    fn number_below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

async fn insert_change(conn: &mut PgConnection) -> Uuid {
    let statement = "insert into changes (tenant_id, kind, subject_id)
                     values (gen_random_uuid(), 'user', gen_random_uuid()) returning subject_id";
    sqlx::query_scalar(statement).fetch_one(conn).await.expect("a change")
}

/// Waits up to 3 ms, so that other transactions run in between.
async fn pause(conn: &mut PgConnection, rng: &mut Rng) {
    let millis = f64::from(u32::try_from(rng.number_below(4)).expect("a number below 4"));
    sqlx::query("select pg_sleep($1 / 1000)").bind(millis).execute(conn).await.expect("slept");
}

/// Writes 15 transactions with one to three changes each. Some transactions are rolled back,
/// completely or in part. Returns the committed changes.
async fn write_transactions(mut conn: PgConnection, mut rng: Rng) -> Vec<Uuid> {
    let mut committed = Vec::new();
    for _ in 0..15 {
        let mut tx = conn.begin().await.expect("begun");
        let mut own_changes = Vec::new();
        for _ in 0..=rng.number_below(3) {
            pause(&mut tx, &mut rng).await;
            if rng.number_below(3) > 0 {
                own_changes.push(insert_change(&mut tx).await);
                continue;
            }
            // A subtransaction has its own transaction id. Snapshots do not contain this id.
            let mut inner = tx.begin().await.expect("begun");
            let inner_change = insert_change(&mut inner).await;
            pause(&mut inner, &mut rng).await;
            if rng.number_below(2) == 0 {
                inner.rollback().await.expect("rolled back");
            } else {
                inner.commit().await.expect("committed");
                own_changes.push(inner_change);
            }
        }
        pause(&mut tx, &mut rng).await;
        if rng.number_below(4) == 0 {
            tx.rollback().await.expect("rolled back");
        } else {
            tx.commit().await.expect("committed");
            committed.append(&mut own_changes);
        }
    }
    committed
}

/// F12: the feed loses no committed change and delivers no other change.
#[tokio::test]
async fn every_commit_is_delivered_exactly_once_in_any_order() {
    const WRITERS: u64 = 6;
    let app = TestApp::spawn().await;
    let pool = app.app_role_pool().await;
    let mut reader = Reader { pool, snapshot: None, delivered: BTreeMap::new() };
    reader.read().await;
    assert!(reader.delivered.is_empty(), "the first read returns only the snapshot");
    let mut expected = BTreeMap::new();
    let mut slow_connection = app.owner_connection().await;
    for round in 0..4 {
        // One transaction stays open during the whole round, so the horizon does not advance.
        let mut open_transaction = slow_connection.begin().await.expect("begun");
        let late_change = insert_change(&mut open_transaction).await;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            writers.push(write_transactions(
                app.owner_connection().await,
                Rng(round * WRITERS + writer),
            ));
        }
        let writers_finished = watch::Sender::new(false);
        let writing = async {
            let committed = futures::future::join_all(writers).await.concat();
            writers_finished.send_replace(true);
            committed
        };
        let reading = async {
            while !*writers_finished.borrow() {
                reader.read().await;
            }
        };
        let (committed, ()) = tokio::join!(writing, reading);
        expected.extend(committed.into_iter().map(|change| (change, 1)));
        reader.read().await;
        assert_eq!(reader.delivered, expected, "round {round}, with the open transaction");
        if round % 2 == 0 {
            open_transaction.commit().await.expect("committed");
            expected.insert(late_change, 1);
        } else {
            open_transaction.rollback().await.expect("rolled back");
        }
        reader.read().await;
        // The second read must not deliver a change again.
        reader.read().await;
        assert_eq!(reader.delivered, expected, "round {round}");
    }
    assert!(expected.len() > 100, "{}", expected.len());
}
