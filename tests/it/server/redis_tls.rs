//! TLS to Redis Sentinel and Redis Cluster: all connections use it, also after a failover.

use tenantry::proto::v1::WhoAmIRequest;

use crate::{
    harness::{Client, PASSWORD, RedisGroup, RedisTls, ServerProcess, wait_until, within_seconds},
    tls::Authority,
};

const LOST: &str = "Redis is unavailable; calls continue without it";
const BACK: &str = "Redis is available again";

/// H09: with `rediss-sentinel://`, the connections to the sentinels and to the master use TLS, also
/// after a failover.
#[tokio::test]
async fn sentinel_is_used_over_tls_also_after_a_failover() {
    let redis = RedisGroup::sentinel_with_tls(&tls(&Authority::new(), "localhost")).await;
    assert_redis_is_used_also_after_a_failover(redis).await;
}

/// H09: with `rediss-cluster://`, the connections to all servers use TLS, also after a failover.
#[tokio::test]
async fn a_cluster_is_used_over_tls_also_after_a_failover() {
    let redis = RedisGroup::cluster_with_tls(&tls(&Authority::new(), "localhost")).await;
    assert_redis_is_used_also_after_a_failover(redis).await;
}

/// H09: a certificate that does not name the announced host is refused, and the log says so.
#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let tls = tls(&Authority::new(), "redis.example");
    for redis in
        [RedisGroup::sentinel_with_tls(&tls).await, RedisGroup::cluster_with_tls(&tls).await]
    {
        let server = start(&redis, &redis.authority_path()).await;
        assert_certificate_is_refused(&server, "NotValidForName").await;
    }
}

/// H09: a certificate of an unknown authority is refused, and the log says so.
#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let tls = tls(&Authority::new(), "localhost");
    let redis = RedisGroup::sentinel_with_tls(&tls).await;
    let dir = tempfile::tempdir().expect("a folder");
    let other_path = dir.path().join("other.pem");
    std::fs::write(&other_path, Authority::new().pem()).expect("written");
    let server = start(&redis, &other_path.display().to_string()).await;
    assert_certificate_is_refused(&server, "UnknownIssuer").await;
}

/// The files of servers with a certificate for this name.
fn tls(authority: &Authority, name: &str) -> RedisTls {
    let certificate = authority.sign(name);
    RedisTls { authority: authority.pem(), cert: certificate.cert, key: certificate.key }
}

async fn start(redis: &RedisGroup, authority: &str) -> ServerProcess {
    ServerProcess::start(&[("REDIS_URL", &redis.url()), ("SSL_CERT_FILE", authority)]).await
}

async fn assert_redis_is_used_also_after_a_failover(mut redis: RedisGroup) {
    let server = start(&redis, &redis.authority_path()).await;
    let acme = Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    assert_sessions_are_cached(&acme, &redis).await;

    let epoch = format!("session-epoch:{{{}}}", acme.tenant_id);
    let old_master = redis.master_of(&epoch).await;
    redis.kill(old_master).await;
    wait_until(60, || async { server.log_events(BACK).len() == 1 }).await;
    assert_sessions_are_cached(&acme, &redis).await;
    assert_ne!(redis.master_of(&epoch).await, old_master);
    let masters = server.log_events(BACK)[0]["masters"].as_str().expect("an address").to_owned();
    assert!(masters.contains("localhost:"), "{masters}");
}

/// Asserts that the server writes sessions to Redis.
async fn assert_sessions_are_cached(acme: &Client, redis: &RedisGroup) {
    within_seconds(30, async {
        loop {
            let session = acme.login(&acme.slug, &acme.email, PASSWORD).await;
            session.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
            let key = format!("session:{{{}}}:{}", acme.tenant_id, session.tokens.session_id);
            if redis.ask(&format!("GET {key}")).await.contains(&acme.user_id) {
                break;
            }
        }
    })
    .await;
}

/// Asserts that the warning says that the certificate is refused, and for which reason.
async fn assert_certificate_is_refused(server: &ServerProcess, reason: &str) {
    wait_until(30, || async { !server.log_events(LOST).is_empty() }).await;
    let cause = server.log_events(LOST)[0]["cause"].as_str().expect("a cause").to_owned();
    assert!(
        cause.contains("the server's certificate is refused") && cause.contains(reason),
        "{cause}"
    );
}
