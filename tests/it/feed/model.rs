//! The feed reader against a model: many writers that commit in any order.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::TestApp;

/// A reader that works like the follower.
struct Reader {
    pool: PgPool,
    snapshot_seen: Option<String>,
    /// Number of times that each change was delivered.
    delivered: BTreeMap<Uuid, u32>,
}

impl Reader {
    async fn read(&mut self) {
        let rows: Vec<(String, bool, Option<Uuid>)> = sqlx::query_as(
            "select snapshot::text, missed, subject_id from read_changes($1::text::pg_snapshot)",
        )
        .bind(&self.snapshot_seen)
        .fetch_all(&self.pool)
        .await
        .expect("changes");
        for (snapshot, missed, subject) in rows {
            assert!(!missed);
            self.snapshot_seen = Some(snapshot);
            if let Some(subject) = subject {
                *self.delivered.entry(subject).or_default() += 1;
            }
        }
    }
}

/// A linear congruential generator (Knuth's MMIX).
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

async fn change(conn: &mut PgConnection) -> Uuid {
    let statement = "insert into changes (tenant_id, kind, subject_id)
                     values (gen_random_uuid(), 'user', gen_random_uuid()) returning subject_id";
    sqlx::query_scalar(statement).fetch_one(conn).await.expect("a change")
}

/// Waits a random short time, so that other transactions run in between.
async fn pause(conn: &mut PgConnection, rng: &mut Rng) {
    let millis = f64::from(u32::try_from(rng.below(4)).expect("small"));
    sqlx::query("select pg_sleep($1 / 1000)").bind(millis).execute(conn).await.expect("slept");
}

/// Writes transactions with some changes each. Some are rolled back, completely or in part.
/// Returns the committed changes.
async fn write(mut conn: PgConnection, mut rng: Rng) -> Vec<Uuid> {
    let mut committed = Vec::new();
    for _ in 0..15 {
        let mut tx = conn.begin().await.expect("begun");
        let mut own_changes = Vec::new();
        for _ in 0..=rng.below(3) {
            pause(&mut tx, &mut rng).await;
            if rng.below(3) > 0 {
                own_changes.push(change(&mut tx).await);
                continue;
            }
            // A subtransaction has its own id, which no snapshot contains.
            let mut inner = tx.begin().await.expect("begun");
            let inner_change = change(&mut inner).await;
            pause(&mut inner, &mut rng).await;
            if rng.below(2) == 0 {
                inner.rollback().await.expect("undone");
            } else {
                inner.commit().await.expect("kept");
                own_changes.push(inner_change);
            }
        }
        pause(&mut tx, &mut rng).await;
        if rng.below(4) == 0 {
            tx.rollback().await.expect("undone");
        } else {
            tx.commit().await.expect("committed");
            committed.append(&mut own_changes);
        }
    }
    committed
}

/// F11, F12: the feed delivers each committed change exactly once, and no other change.
#[tokio::test]
async fn every_commit_is_delivered_exactly_once_in_any_order() {
    const WRITERS: u64 = 6;
    let app = TestApp::spawn().await;
    let pool = app.app_role().await;
    let mut reader = Reader { pool, snapshot_seen: None, delivered: BTreeMap::new() };
    reader.read().await;
    assert!(reader.delivered.is_empty(), "the first read returns only the snapshot");
    let mut expected = BTreeMap::new();
    let mut slow = app.owner().await;
    for round in 0..4 {
        // One open transaction holds the horizon back during the whole round.
        let mut open_transaction = slow.begin().await.expect("begun");
        let late_change = change(&mut open_transaction).await;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            writers.push(write(app.owner().await, Rng(round * WRITERS + writer)));
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
        assert_eq!(reader.delivered, expected, "round {round}, the slow transaction still open");
        if round % 2 == 0 {
            open_transaction.commit().await.expect("committed");
            expected.insert(late_change, 1);
        } else {
            open_transaction.rollback().await.expect("undone");
        }
        reader.read().await;
        reader.read().await;
        assert_eq!(reader.delivered, expected, "round {round}");
    }
    assert!(expected.len() > 100, "{}", expected.len());
}
