//! Number of Postgres queries that decisions need.

use futures::future::join_all;
use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, CheckRequest, Consistency};

use crate::harness::{Client, Proxy, TestApp, until};

/// A replica whose statements are counted, and an administrator whose token and permissions it
/// has in memory.
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
    // Wait until the replica answers this caller from its memory.
    let is_warm = || async {
        there.may("", "doc:read").await;
        proxy.asked().is_empty()
    };
    until(10, is_warm).await;
    Counted { proxy, app, replica, acme, there }
}

impl Counted {
    /// Number of queries for subjects since the last call. Asserts that there were no other
    /// queries.
    #[track_caller]
    fn reads(&self) -> usize {
        let asked = self.proxy.asked();
        assert!(asked.iter().all(|sql| sql.contains("from subject_standings(")), "{asked:?}");
        asked.len()
    }

    /// Number of times that the feed fell behind, as the replica counts it. `None` while it is
    /// behind.
    async fn lapses(&self) -> Option<f64> {
        let lag = self.replica.metric("tenantry_feed_lag_seconds").await.expect("a lag");
        if lag < 1.0 { self.replica.metric("tenantry_feed_lapses_total").await } else { None }
    }

    /// Creates users, two thirds of them with permission to read documents. Returns each id
    /// with the expected decision.
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
        // A write returns when its replica has read all changes before it. So no change arrives
        // while queries are counted.
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
async fn a_cold_check_queries_once_a_warm_one_never_and_a_fully_consistent_one_always() {
    let world = counted().await;
    for (user, may) in world.readers(6).await {
        let decide = async |consistency| {
            assert_eq!(world.there.decide(about(&user, consistency)).await.allowed, may);
            world.reads()
        };
        assert_eq!(decide(Consistency::MinimizeLatency).await, 1);
        // Memory does not answer while the feed is behind, which happens on a busy machine.
        until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
        assert_eq!(decide(Consistency::FullyConsistent).await, 1);
        assert_eq!(decide(Consistency::FullyConsistent).await, 1);
        until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
    }
}

/// H08
#[tokio::test]
async fn concurrent_cold_checks_of_one_subject_share_one_query() {
    let world = counted().await;
    let mut judged = 0;
    for (user, may) in world.readers(20).await {
        let before = world.lapses().await;
        let checks = (0..100).map(|_| world.there.may(&user, "doc:read"));
        assert_eq!(join_all(checks).await, [may; 100]);
        let reads = world.reads();
        // While the feed is behind, each check queries for itself, so such a round is not
        // judged.
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

/// N21: one query reads at most sixteen subjects, however many assignments they have.
#[tokio::test]
async fn a_batch_sends_one_query_for_each_sixteen_cold_subjects() {
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
async fn concurrent_batches_read_no_subject_twice() {
    let world = counted().await;
    let users = world.readers(32).await;
    // Each batch has half of its subjects in common with the batch before it.
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
