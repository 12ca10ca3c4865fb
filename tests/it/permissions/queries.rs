//! Number of Postgres queries that decisions need.

use futures::future::join_all;
use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, CheckRequest, Consistency};

use crate::harness::{Client, Proxy, TestApp, wait_until};

/// A replica that connects to Postgres through a proxy, which records the replica's SQL statements.
/// Also an administrator whose token and permissions are in the replica's cache.
struct ReplicaWithQueryLog {
    proxy: Proxy,
    app: TestApp,
    replica: TestApp,
    acme: Client,
    replica_client: Client,
}

async fn start_replica_with_query_log() -> ReplicaWithQueryLog {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = acme.on_server(&replica.channel);
    // Wait until the replica decides for this caller from the cache.
    let is_warm = || async {
        replica_client.may("doc:read").await;
        proxy.take_statements().is_empty()
    };
    wait_until(10, is_warm).await;
    ReplicaWithQueryLog { proxy, app, replica, acme, replica_client }
}

impl ReplicaWithQueryLog {
    /// Number of queries for subjects since the last call of this method. Asserts that no other
    /// statement was sent.
    #[track_caller]
    fn subject_queries(&self) -> usize {
        let statements = self.proxy.take_statements();
        assert!(
            statements.iter().all(|sql| sql.contains("from subject_standings(")),
            "{statements:?}"
        );
        statements.len()
    }

    /// How often the change feed of the replica fell behind. `None` while the feed is behind.
    async fn feed_lapses(&self) -> Option<f64> {
        let lag = self.replica.metric("tenantry_feed_lag_seconds").await.expect("a lag");
        if lag < 1.0 { self.replica.metric("tenantry_feed_lapses_total").await } else { None }
    }

    /// Creates users. Two thirds of the users may read documents. Returns each user id with the
    /// expected decision.
    async fn create_readers(&self, count: i32) -> Vec<(String, bool)> {
        let role_id = self
            .acme
            .create_role("reader", tenantry::proto::v1::RoleLevel::Member, &["doc:*"])
            .await;
        let insert = "with new_users as (
                insert into users (tenant_id, user_id, profile, email_index, email_lookup)
                select $1::uuid, gen_random_uuid(), n::text::bytea, sha256(n::text::bytea),
                    sha256(n::text::bytea)
                from generate_series(1, $3) n
                returning tenant_id, user_id, encode(profile, 'escape')::int as n
            ), new_assignments as (
                insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
                select tenant_id, gen_random_uuid(), user_id, $2::uuid from new_users
                where n % 3 > 0
            )
            select user_id::text, n % 3 > 0 from new_users";
        let readers = sqlx::query_as(insert)
            .bind(&self.acme.tenant_id)
            .bind(role_id)
            .bind(count)
            .fetch_all(&mut self.app.owner_connection().await)
            .await
            .expect("readers");
        // A write returns after its replica has read all earlier changes. So no change arrives
        // while the test counts queries.
        self.replica_client.create_role("last", tenantry::proto::v1::RoleLevel::Member, &[]).await;
        // The workers of the audit trail send statements until every event is in the chain.
        self.app.wait_until_audit_settled().await;
        self.proxy.take_statements();
        readers
    }
}

fn check_request(user: &str, consistency: Consistency) -> CheckRequest {
    CheckRequest {
        user_id: user.into(),
        permission: "doc:read".into(),
        consistency: consistency.into(),
        ..CheckRequest::default()
    }
}

#[tokio::test]
async fn a_check_sends_a_query_only_if_it_is_uncached_or_fully_consistent() {
    let replica = start_replica_with_query_log().await;
    for (user, expected) in replica.create_readers(6).await {
        let decide = async |consistency| {
            assert_eq!(
                replica.replica_client.decide(check_request(&user, consistency)).await.allowed,
                expected
            );
            replica.subject_queries()
        };
        assert_eq!(decide(Consistency::MinimizeLatency).await, 1);
        // The cache is not used while the feed is behind, which happens on a busy machine.
        wait_until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
        assert_eq!(decide(Consistency::FullyConsistent).await, 1);
        assert_eq!(decide(Consistency::FullyConsistent).await, 1);
        wait_until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
    }
}

/// H08: concurrent cache misses for one subject are combined.
#[tokio::test]
async fn concurrent_uncached_checks_of_one_subject_share_one_query() {
    let replica = start_replica_with_query_log().await;
    let mut checked_rounds = 0;
    for (user, expected) in replica.create_readers(20).await {
        let lapses_before = replica.feed_lapses().await;
        let checks = (0..100).map(|_| replica.replica_client.user_may(&user, "doc:read"));
        assert_eq!(join_all(checks).await, [expected; 100]);
        let subject_queries = replica.subject_queries();
        // While the feed is behind, each check sends its own query. Such a round is skipped.
        if lapses_before.is_some() && replica.feed_lapses().await == lapses_before {
            assert_eq!(subject_queries, 1);
            checked_rounds += 1;
        }
    }
    assert!(checked_rounds > 0, "the feed was behind in every round");
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

async fn batch_decisions(client: &Client, request: BatchCheckRequest) -> Vec<bool> {
    let reply = client.permissions().batch_check(request).await.expect("decisions").into_inner();
    reply.results.iter().map(|result| result.allowed).collect()
}

/// N21: one query reads at most 16 subjects.
#[tokio::test]
async fn a_batch_sends_one_query_for_each_sixteen_uncached_subjects() {
    let replica = start_replica_with_query_log().await;
    let users = replica.create_readers(1000).await;
    let expected: Vec<_> = users.iter().map(|(_, expected)| *expected).collect();

    let decide = async |consistency| {
        assert_eq!(
            batch_decisions(&replica.replica_client, batch(&users, consistency)).await,
            expected
        );
        replica.subject_queries()
    };
    // 1000 subjects / 16, rounded up.
    assert_eq!(decide(Consistency::MinimizeLatency).await, 63);
    wait_until(10, || async { decide(Consistency::MinimizeLatency).await == 0 }).await;
    assert_eq!(decide(Consistency::FullyConsistent).await, 63);
}

#[tokio::test]
async fn overlapping_concurrent_batches_send_at_most_one_query_each() {
    let replica = start_replica_with_query_log().await;
    let users = replica.create_readers(32).await;
    // Each batch shares half of its subjects with the previous batch.
    let groups: Vec<_> = (0..3).map(|n| &users[n * 8..n * 8 + 16]).collect();
    let batches = groups.iter().map(|group| {
        let request = batch(group, Consistency::MinimizeLatency);
        batch_decisions(&replica.replica_client, request)
    });
    for (decisions, group) in join_all(batches).await.iter().zip(&groups) {
        assert!(decisions.iter().eq(group.iter().map(|(_, expected)| expected)));
    }
    let subject_queries = replica.subject_queries();
    assert!((1..=groups.len()).contains(&subject_queries), "{subject_queries}");
}
