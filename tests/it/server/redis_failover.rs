//! Redis Sentinel and Redis Cluster: all parts that use Redis work before and after a failover, and
//! calls are answered during the failover.

use tenantry::proto::v1::{
    DeleteTenantRequest, LoginRequest, RoleLevel, WatchEventsRequest, WhoAmIRequest,
};
use tonic::Code;

use super::redis_faults::assert_core_calls_work;
use crate::harness::{
    Client, PASSWORD, RedisGroup, ServerProcess, TestApp, assert_refused, unique_text, wait_until,
    within_seconds,
};

const LOST: &str = "Redis is unavailable; calls continue without it";
const BACK: &str = "Redis is available again";

/// H09: the new master of Sentinel is used after the old one ended.
#[tokio::test]
async fn after_a_failover_of_sentinel_all_parts_use_the_new_master() {
    let mut redis = RedisGroup::sentinel().await;
    let app = start(&redis).await;
    let url = redis.url();
    let server = ServerProcess::start(&[("REDIS_URL", &url)]).await;
    let acme = app.create_tenant("acme").await;
    assert_all_parts_use_redis(&app, &acme, &redis).await;

    let old_master = redis.master_of(&epoch_key(&acme)).await;
    redis.kill(old_master).await;
    assert_calls_continue_until_redis_is_back(&app, &acme).await;

    assert_ne!(redis.master_of(&epoch_key(&acme)).await, old_master);
    assert_all_parts_use_redis(&app, &acme, &redis).await;
    assert_core_calls_work(&app, &acme).await;
    wait_until(20, || async { server.log_events(BACK).len() == 1 }).await;
    let warning = &server.log_events(LOST)[0];
    assert_eq!(warning["level"], "WARN");
    let sentinels = warning["redis"].as_str().expect("the sentinels").split(',');
    assert!(sentinels.clone().count() == 3 && sentinels.clone().all(|it| url.contains(it)));
    let masters = server.log_events(BACK)[0]["masters"].as_str().expect("an address").to_owned();
    assert!(
        masters.contains("127.0.0.1:") && !masters.contains(&old_master.to_string()),
        "{masters}"
    );
}

/// H09: a master whose host is gone keeps its connections open. Sentinel promotes a replica, and
/// the server leaves the old connections, also the one on which it receives wake-ups.
#[tokio::test]
async fn connections_to_a_master_that_is_silent_are_replaced() {
    let mut redis = RedisGroup::sentinel().await;
    let app = start(&redis).await;
    let acme = app.create_tenant("acme").await;
    assert_all_parts_use_redis(&app, &acme, &redis).await;
    let old_master = redis.master_of(&epoch_key(&acme)).await;
    redis.pause(old_master).await;
    assert_calls_continue_until_redis_is_back(&app, &acme).await;
    redis.kill(old_master).await;
    assert_all_parts_use_redis(&app, &acme, &redis).await;
}

/// H09: in a cluster, all parts work, also after the failover of a master. The keys of a tenant are
/// in one slot.
#[tokio::test]
async fn in_a_cluster_all_parts_work_also_after_a_failover() {
    let mut redis = RedisGroup::cluster().await;
    let app = start(&redis).await;
    let acme = app.create_tenant("acme").await;
    let other = app.create_tenant("other").await;
    for client in [&acme, &other] {
        assert_all_parts_use_redis(&app, client, &redis).await;
    }
    let old_master = redis.master_of(&epoch_key(&acme)).await;
    redis.kill(old_master).await;
    assert_calls_continue_until_redis_is_back(&app, &acme).await;

    assert_ne!(redis.master_of(&epoch_key(&acme)).await, old_master);
    for client in [&acme, &other] {
        assert_all_parts_use_redis(&app, client, &redis).await;
        assert_core_calls_work(&app, client).await;
    }
    delete_tenant(&app, &acme, &redis).await;
}

async fn start(redis: &RedisGroup) -> TestApp {
    let url = redis.url();
    let app = TestApp::with_settings(|values| {
        values.set("REDIS_URL", url);
        values.set("RATE_LIMIT_SIGN_IN", "600/1m,6000/1m");
    })
    .await;
    wait_until(10, || async { app.metric("tenantry_redis_up").await == Some(1.0) }).await;
    app
}

fn epoch_key(client: &Client) -> String {
    format!("session-epoch:{{{}}}", client.tenant_id)
}

/// Asserts that session entries, rate limits, waits after wrong passwords, audit streams and
/// wake-ups use Redis.
async fn assert_all_parts_use_redis(app: &TestApp, acme: &Client, redis: &RedisGroup) {
    let tenant = &acme.tenant_id;
    let ada = acme.create_member(&unique_text(), &[]).await;

    // A session is in the cache, and is refused after its end.
    let session = within_seconds(20, async {
        loop {
            let session = app.anonymous().login(&acme.slug, &ada.email, PASSWORD).await;
            session.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
            let id = &session.tokens.session_id;
            let entry = redis.ask(&format!("GET session:{{{tenant}}}:{id}")).await;
            if entry.contains(&ada.user_id) {
                break session;
            }
        }
    })
    .await;
    let epoch = redis.ask(&format!("GET {}", epoch_key(acme))).await;
    session.auth().logout(tenantry::proto::v1::LogoutRequest::default()).await.expect("signed out");
    let reply = session.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    wait_until(10, || async { redis.ask(&format!("GET {}", epoch_key(acme))).await != epoch })
        .await;

    // Redis counts sign-ins and wrong passwords. The metric grows when the replica counts without
    // Redis.
    wait_until(10, || async {
        let counted_alone = app.metric("tenantry_rate_counted_alone_total").await;
        app.anonymous().login(&acme.slug, &ada.email, PASSWORD).await;
        app.metric("tenantry_rate_counted_alone_total").await == counted_alone
    })
    .await;
    let wrong_password = LoginRequest {
        organization_slug: acme.slug.clone(),
        email: ada.email.clone(),
        password: "not this one".into(),
        ..LoginRequest::default()
    };
    let reply = app.anonymous().auth().login(wrong_password).await;
    assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    wait_until(10, || async {
        redis.ask("KEYS guess:*").await.contains(&format!("guess:{{{tenant}}}:"))
    })
    .await;

    // An event is in the stream of the tenant, and in `WatchEvents`.
    let request = WatchEventsRequest::default();
    let mut events = acme.audit().watch_events(request).await.expect("a stream").into_inner();
    let role = acme.create_role(&unique_text(), RoleLevel::Member, &[]).await;
    wait_until(10, || async {
        redis.ask(&format!("XRANGE audit:{{{tenant}}} - +")).await.contains(&role)
    })
    .await;
    within_seconds(10, async {
        loop {
            let message = events.message().await.expect("no failure").expect("a message");
            if message.event.is_some_and(|event| event.target_id == role) {
                break;
            }
        }
    })
    .await;

    // Wake-ups arrive.
    wait_until(20, || async { app.metric("tenantry_feed_subscribed").await == Some(1.0) }).await;
    let channel = format!("tenantry:changes:{}", app.database);
    wait_until(20, || async { redis.ask("PUBSUB CHANNELS").await.contains(&channel) }).await;
}

/// Asserts that calls are answered in time while a failover runs: until `tenantry_redis_up` was 0
/// and is 1 again.
async fn assert_calls_continue_until_redis_is_back(app: &TestApp, acme: &Client) {
    for up in [0.0, 1.0] {
        within_seconds(30, async {
            while app.metric("tenantry_redis_up").await != Some(up) {
                within_seconds(5, assert_core_calls_work(app, acme)).await;
            }
        })
        .await;
    }
}

/// Deletes a tenant, and waits until its keys are deleted too.
async fn delete_tenant(app: &TestApp, acme: &Client, redis: &RedisGroup) {
    let platform_admin = app.platform_admin().await;
    let request =
        DeleteTenantRequest { tenant: acme.slug.clone(), ..DeleteTenantRequest::default() };
    platform_admin.tenants().delete_tenant(request).await.expect("deleted");
    app.wait_until_purged().await;
    for key in [epoch_key(acme), format!("audit:{{{}}}", acme.tenant_id)] {
        assert!(!redis.ask(&format!("EXISTS {key}")).await.contains(":1"), "{key}");
    }
}
