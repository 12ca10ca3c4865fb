//! How often Postgres is asked to decide.

use futures::future::join_all;
use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, CheckRequest, Consistency};

use crate::harness::{Client, Proxy, TestApp, until};

/// A replica whose statements are counted, and an administrator who is known
/// to it.
struct Counted {
    proxy: Proxy,
    app: TestApp,
    replica: TestApp,
    acme: Client,
    there: Client,
}

async fn counted() -> Counted {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let replica = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let there = acme.on(&replica.channel);
    // From here on its memory answers.
    let is_warm = || async {
        there.may("", "doc:read").await;
        proxy.asked().is_empty()
    };
    until(10, is_warm).await;
    Counted { proxy, app, replica, acme, there }
}

impl Counted {
    /// How often subjects were read, which must be all that was asked.
    #[track_caller]
    fn reads(&self) -> usize {
        let asked = self.proxy.asked();
        assert!(asked.iter().all(|sql| sql.contains("from subject_standings(")), "{asked:?}");
        asked.len()
    }

    /// How often the feed has been late, as the replica counts it; `None` while it is.
    async fn lapses(&self) -> Option<f64> {
        let lag = self.replica.metric("tenantry_feed_lag_seconds").await.expect("a lag");
        if lag < 1.0 { self.replica.metric("tenantry_feed_lapses_total").await } else { None }
    }

    /// Makes readers of documents, all but every third one.
    async fn readers(&self, count: i32) -> Vec<(String, bool)> {
        let role =
            self.acme.create_role("reader", tenantry::proto::v1::RoleLevel::Member, &["doc:*"]);
        let make = "with made as (
                insert into users (tenant_id, user_id, profile, email_index, email_lookup)
                select $1::uuid, gen_random_uuid(), n::text::bytea, sha256(n::text::bytea),
                    sha256(n::text::bytea)
                from generate_series(1, $3) n
                returning tenant_id, user_id, encode(profile, 'escape')::int as n
            ), given as (
                insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
                select tenant_id, gen_random_uuid(), user_id, $2::uuid from made
                where n % 3 > 0
            )
            select user_id::text, n % 3 > 0 from made";
        let readers = sqlx::query_as(make)
            .bind(&self.acme.tenant_id)
            .bind(role.await)
            .bind(count)
            .fetch_all(&mut self.app.owner().await)
            .await
            .expect("readers");
        // A write ends when its replica knows all changes before it: none comes while
        // queries are counted.
        self.there.create_role("last", tenantry::proto::v1::RoleLevel::Member, &[]).await;
        self.app.audit_settled().await;
        self.proxy.asked();
        readers
    }
}

fn about(user: &str, consistency: Consistency) -> CheckRequest {
    CheckRequest {
        user_id: user.into(),
        permission: "doc:read".into(),
        consistency: consistency.into(),
        ..CheckRequest::default()
    }
}

#[tokio::test]
async fn a_cold_check_asks_once_a_warm_one_never_and_a_consistent_one_each_time() {
    let world = counted().await;
    for (user, may) in world.readers(6).await {
        let decide = async |consistency| {
            assert_eq!(world.there.decide(about(&user, consistency)).await.allowed, may);
            world.reads()
        };
        assert_eq!(decide(Consistency::MinimizeLatency).await, 1);
        // Memory does not answer while the machine is too busy for the feed.
        until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
        assert_eq!(decide(Consistency::FullyConsistent).await, 1);
        assert_eq!(decide(Consistency::FullyConsistent).await, 1);
        until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
    }
}

/// H08
#[tokio::test]
async fn a_hundred_cold_checks_of_one_subject_at_once_ask_once() {
    let world = counted().await;
    let mut judged = 0;
    for (user, may) in world.readers(20).await {
        let before = world.lapses().await;
        let checks = (0..100).map(|_| world.there.may(&user, "doc:read"));
        assert_eq!(join_all(checks).await, [may; 100]);
        let reads = world.reads();
        // Where the machine is too busy for the feed, each asks for itself.
        if before.is_some() && world.lapses().await == before {
            assert_eq!(reads, 1);
            judged += 1;
        }
    }
    assert!(judged > 0, "the feed never kept up");
}

fn batch(users: &[(String, bool)], consistency: Consistency) -> BatchCheckRequest {
    let items = users.iter().map(|(user, _)| BatchCheckItem {
        user_id: user.clone(),
        permission: "doc:read".into(),
        ..BatchCheckItem::default()
    });
    BatchCheckRequest {
        items: items.collect(),
        consistency: consistency.into(),
        ..Default::default()
    }
}

async fn answers(client: &Client, request: BatchCheckRequest) -> Vec<bool> {
    let reply = client.permissions().batch_check(request).await.expect("decisions").into_inner();
    reply.results.iter().map(|result| result.allowed).collect()
}

/// N21: each query reads sixteen subjects at most, whatever they hold.
#[tokio::test]
async fn a_batch_asks_once_for_each_sixteen_cold_subjects() {
    let world = counted().await;
    let users = world.readers(1000).await;
    let wanted: Vec<_> = users.iter().map(|(_, may)| *may).collect();

    let decide = async |consistency| {
        assert_eq!(answers(&world.there, batch(&users, consistency)).await, wanted);
        world.reads()
    };
    assert_eq!(decide(Consistency::MinimizeLatency).await, 63);
    until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
    assert_eq!(decide(Consistency::FullyConsistent).await, 63);
}

#[tokio::test]
async fn batches_at_once_read_no_subject_twice() {
    let world = counted().await;
    let users = world.readers(32).await;
    // Each has half of its subjects in common with each of its neighbours.
    let parts: Vec<_> = (0..3).map(|n| &users[n * 8..n * 8 + 16]).collect();
    let batches = parts.iter().map(|part| {
        let request = batch(part, Consistency::MinimizeLatency);
        answers(&world.there, request)
    });
    for (answer, part) in join_all(batches).await.iter().zip(&parts) {
        assert!(answer.iter().eq(part.iter().map(|(_, may)| may)));
    }
    let reads = world.reads();
    assert!((1..=parts.len()).contains(&reads), "{reads}");
}
