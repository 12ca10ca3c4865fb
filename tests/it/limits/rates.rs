//! Rate limits by network and by tenant.

use std::time::Duration;

use tenantry::proto::v1::{GetJwksRequest, IntrospectTokenRequest, RefreshRequest};
use tonic::Code;

use super::{
    assert_rate_limited, assert_wrong_password, client_from, guess, login_request,
    new_network_address, trusting_local_proxy,
};
use crate::harness::{
    Client, PASSWORD, Proxy, TestApp, assert_refused, redis, unique_text, wait_until,
};

/// Starts a server with this rate limit. The server trusts the `x-forwarded-for` header.
pub async fn server_with_rate_limit(setting: &'static str, rate: &str) -> TestApp {
    TestApp::with_settings(|values| {
        trusting_local_proxy(values);
        values.set(setting, rate);
    })
    .await
}

/// Signs in with a wrong password to a new unknown account.
async fn guess_at_new_account(client: &Client) -> tonic::Status {
    guess(client, &format!("{}@x.test", unique_text()), "nowhere").await
}

/// G01: the rate limit of sign-ins applies to each network separately.
#[tokio::test]
async fn only_the_network_above_its_rate_must_wait() {
    let app = server_with_rate_limit("RATE_LIMIT_SIGN_IN", "5/1m,off").await;
    let (first_network, second_network) =
        (client_from(&app, &new_network_address()), client_from(&app, &new_network_address()));
    for _ in 0..5 {
        assert_wrong_password(guess_at_new_account(&first_network).await);
    }
    let retry_delay = assert_rate_limited(guess_at_new_account(&first_network).await);
    assert!(
        retry_delay <= Duration::from_secs(12),
        "the next call is allowed after a fifth of the minute: {retry_delay:?}"
    );
    assert_wrong_password(guess_at_new_account(&second_network).await);
    let refusals = r#"tenantry_rate_limited_total{class="sign_in",by="network"}"#;
    assert_eq!(app.metric(refusals).await, Some(1.0));
    // Calls that are no sign-ins are not counted.
    first_network.auth().get_jwks(GetJwksRequest {}).await.expect("the keys");
}

/// G02: the rate limit of sign-ins applies to each tenant, across all networks.
#[tokio::test]
async fn only_the_tenant_above_its_rate_must_wait() {
    let app = server_with_rate_limit("RATE_LIMIT_SIGN_IN", "off,5/1m").await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    // The sign-in of the tenant's administrator was the first call.
    for _ in 0..4 {
        assert_wrong_password(
            guess(&client_from(&app, &new_network_address()), "who@a.test", "a").await,
        );
    }
    assert_rate_limited(guess(&client_from(&app, &new_network_address()), "who@a.test", "a").await);
    let client_with_tenant_id =
        client_from(&app, &new_network_address()).with_metadata("x-tenant-id", &a.tenant_id);
    assert_rate_limited(guess(&client_with_tenant_id, "who@a.test", "").await);
    client_from(&app, &new_network_address())
        .auth()
        .login(login_request(&b.email, "b", PASSWORD))
        .await
        .expect("signs in");
}

/// G03: only a trusted proxy may set the client's address.
#[tokio::test]
async fn forwarding_headers_of_an_untrusted_client_are_ignored() {
    let app = TestApp::with_settings(|values| values.set("RATE_LIMIT_SIGN_IN", "5/1m,off")).await;
    let untrusted_client =
        |header: &str| app.anonymous().with_metadata(header, &new_network_address());
    for header in ["x-forwarded-for", "x-real-ip", "x-forwarded-for", "forwarded", "x-client-ip"] {
        assert_wrong_password(guess_at_new_account(&untrusted_client(header)).await);
    }
    assert_rate_limited(guess_at_new_account(&untrusted_client("x-forwarded-for")).await);
    assert_rate_limited(guess_at_new_account(&app.anonymous()).await);
}

/// G03: the limit applies to an IPv6 network, not to one address.
#[tokio::test]
async fn addresses_of_one_network_are_counted_together() {
    let app = server_with_rate_limit("RATE_LIMIT_SIGN_IN", "2/1m,off").await;
    let network = new_network_address();
    assert_wrong_password(guess_at_new_account(&client_from(&app, &network)).await);
    assert_wrong_password(
        guess_at_new_account(&client_from(&app, &network.replace("::1", ":1:2:3:4"))).await,
    );
    assert_rate_limited(
        guess_at_new_account(&client_from(&app, &network.replace("::1", "::2"))).await,
    );
    // Only the last address in the header is trusted.
    assert_rate_limited(
        guess_at_new_account(&client_from(&app, &format!("{}, {network}", new_network_address())))
            .await,
    );
}

#[tokio::test]
async fn replicas_share_their_counts() {
    let app = server_with_rate_limit("RATE_LIMIT_SIGN_IN", "4/1h,off").await;
    let second_replica = TestApp::on_database(&app.database, |values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "4/1h,off");
    })
    .await;
    let network = new_network_address();
    for replica in [&app, &second_replica, &second_replica, &app] {
        assert_wrong_password(guess_at_new_account(&client_from(replica, &network)).await);
    }
    for replica in [&app, &second_replica] {
        assert_rate_limited(guess_at_new_account(&client_from(replica, &network)).await);
    }
}

/// H03: without Redis, each replica enforces the limit with its own counters.
#[tokio::test]
async fn without_redis_each_replica_counts_alone() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with_settings(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "5/1m,off");
        values.set("REDIS_URL", url);
    })
    .await;
    proxy.cut();
    let calls_counted_locally = || async { app.metric("tenantry_rate_counted_alone_total").await };
    // Until the replica detects the fault, some calls may still be counted in Redis.
    wait_until(10, || async {
        guess_at_new_account(&client_from(&app, &new_network_address())).await;
        calls_counted_locally().await > Some(0.0)
    })
    .await;
    let (first_network, second_network) =
        (client_from(&app, &new_network_address()), client_from(&app, &new_network_address()));
    for _ in 0..5 {
        assert_wrong_password(guess_at_new_account(&first_network).await);
    }
    assert_rate_limited(guess_at_new_account(&first_network).await);
    assert_wrong_password(guess_at_new_account(&second_network).await);
}

/// R23: Refresh and `IntrospectToken` have separate limits.
#[tokio::test]
async fn refreshes_and_introspections_are_limited_separately() {
    let app = TestApp::with_settings(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_REFRESH", "3/1m,off");
        values.set("RATE_LIMIT_INTROSPECTION", "2/1m,off");
    })
    .await;
    let acme =
        app.create_tenant("acme").await.with_metadata("x-forwarded-for", &new_network_address());
    let introspect = || async {
        let request = IntrospectTokenRequest { token: unique_text() };
        acme.auth().introspect_token(request).await
    };
    for _ in 0..2 {
        assert!(!introspect().await.expect("a response").into_inner().active);
    }
    assert_rate_limited(introspect().await.expect_err("the rate is exceeded"));

    let refresh = || async {
        let request = RefreshRequest { refresh_token: "x".into(), ..RefreshRequest::default() };
        acme.auth().refresh(request).await
    };
    for _ in 0..3 {
        assert_refused(refresh().await, Code::Unauthenticated, "TOKEN_INVALID");
    }
    assert_rate_limited(refresh().await.expect_err("the rate is exceeded"));
}

/// G05: Redis keys contain no email address, are short, and expire.
#[tokio::test]
async fn redis_keys_are_short_and_expire_for_any_input() {
    let app = server_with_rate_limit("RATE_LIMIT_SIGN_IN", "100/1m,100/1m").await;
    let acme = client_from(&app, &new_network_address()).sign_up_tenant("acme").await;
    let tag = format!("{{{}}}", acme.tenant_id);
    let client = client_from(&app, &new_network_address());
    for length in [1, 50, 200] {
        let email = format!("{}@{}.test", unique_text(), "x".repeat(length.min(60)));
        assert_wrong_password(guess(&client, &email, "acme").await);
    }
    let key_list = redis(&format!("KEYS *{tag}*")).await;
    let keys: Vec<_> = key_list.lines().filter(|line| line.contains(&tag)).map(str::trim).collect();
    let counter_keys =
        keys.iter().filter(|key| key.starts_with("rate:") || key.starts_with("guess:"));
    let counter_keys: Vec<_> = counter_keys.collect();
    assert!(counter_keys.len() >= 4, "{key_list}");
    for key in counter_keys {
        assert!(key.len() < 128, "{key}");
        assert!(!key.contains('@'), "{key}");
        let expiry_millis = redis(&format!("PTTL {key}")).await;
        let expiry_millis: i64 = expiry_millis
            .lines()
            .next()
            .expect("a line")
            .trim_start_matches(':')
            .parse()
            .expect("ms");
        assert!(expiry_millis > 0, "{key}: {expiry_millis}");
    }
}

/// N23: the server treats an impossible stored time as the latest possible time, so the wait ends.
#[tokio::test]
async fn no_value_of_a_key_blocks_a_tenant_forever() {
    let app = server_with_rate_limit("RATE_LIMIT_SIGN_IN", "off,10/2s").await;
    let acme = client_from(&app, &new_network_address()).sign_up_tenant("acme").await;
    let key = format!("rate:{{{}}}:sign_in", acme.tenant_id);
    let long_number = "9".repeat(1000);
    for value in ["9e99", "inf", "nan", "x", "100000000000000000", "9000000000000000", &long_number]
    {
        redis(&format!("SET {key} {value}")).await;
        wait_until(10, || async {
            let correct_sign_in = login_request(&acme.email, "acme", PASSWORD);
            client_from(&app, &new_network_address()).auth().login(correct_sign_in).await.is_ok()
        })
        .await;
        let stored_value = redis(&format!("GET {key}")).await;
        assert!(!stored_value.contains(value), "{value:.20}");
        let expiry_millis = redis(&format!("PTTL {key}")).await;
        // -1 means a key without an expiry. On a busy machine the key may have expired: -2.
        assert!(!expiry_millis.starts_with(":-1"), "{value:.20}: {expiry_millis}");
    }
    redis(&format!("DEL {key}")).await;
    redis(&format!("LPUSH {key} x")).await;
    let correct_sign_in = login_request(&acme.email, "acme", PASSWORD);
    client_from(&app, &new_network_address())
        .auth()
        .login(correct_sign_in)
        .await
        .expect("signs in");
    assert!(redis(&format!("TYPE {key}")).await.starts_with("+string"));
}
