//! Rate limits by network and by tenant.

use std::time::Duration;

use tenantry::proto::v1::{GetJwksRequest, IntrospectTokenRequest, RefreshRequest};
use tonic::Code;

use super::{address, at, guess, sign_in, trusting_local_proxy, wait, wrong};
use crate::harness::{Client, PASSWORD, Proxy, TestApp, redis, refused, unknown_id, until};

pub async fn limited(name: &'static str, rate: &str) -> TestApp {
    TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set(name, rate);
    })
    .await
}

/// A guess at a new account each time.
async fn guess_anew(client: &Client) -> tonic::Status {
    guess(client, &format!("{}@x.test", unknown_id()), "nowhere").await
}

/// G01
#[tokio::test]
async fn a_network_above_its_rate_waits_and_another_does_not() {
    let app = limited("RATE_LIMIT_SIGN_IN", "5/1m,off").await;
    let (one, other) = (at(&app, &address()), at(&app, &address()));
    for _ in 0..5 {
        wrong(guess_anew(&one).await);
    }
    let told = wait(guess_anew(&one).await);
    assert!(
        told <= Duration::from_secs(12),
        "the next call is allowed after a fifth of the minute: {told:?}"
    );
    wrong(guess_anew(&other).await);
    let refusals = r#"tenantry_rate_limited_total{class="sign_in",by="network"}"#;
    assert_eq!(app.metric(refusals).await, Some(1.0));
    // Calls that are no sign-ins are not counted.
    one.auth().get_jwks(GetJwksRequest {}).await.expect("the keys");
}

/// G02
#[tokio::test]
async fn a_tenant_above_its_rate_is_limited_and_another_is_not() {
    let app = limited("RATE_LIMIT_SIGN_IN", "off,5/1m").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    // The sign-in of the tenant's administrator was the first call.
    for _ in 0..4 {
        wrong(guess(&at(&app, &address()), "who@a.test", "a").await);
    }
    wait(guess(&at(&app, &address()), "who@a.test", "a").await);
    let by_id = at(&app, &address()).with("x-tenant-id", &a.tenant_id);
    wait(guess(&by_id, "who@a.test", "").await);
    at(&app, &address()).auth().login(sign_in(&b.email, "b", PASSWORD)).await.expect("signs in");
}

/// G03
#[tokio::test]
async fn forwarding_headers_of_an_untrusted_client_are_ignored() {
    let app = TestApp::with(|values| values.set("RATE_LIMIT_SIGN_IN", "5/1m,off")).await;
    let liar = |header: &str| app.anonymous().with(header, &address());
    for header in ["x-forwarded-for", "x-real-ip", "x-forwarded-for", "forwarded", "x-client-ip"] {
        wrong(guess_anew(&liar(header)).await);
    }
    wait(guess_anew(&liar("x-forwarded-for")).await);
    wait(guess_anew(&app.anonymous()).await);
}

/// G03
#[tokio::test]
async fn addresses_of_one_network_are_counted_together() {
    let app = limited("RATE_LIMIT_SIGN_IN", "2/1m,off").await;
    let network = address();
    wrong(guess_anew(&at(&app, &network)).await);
    wrong(guess_anew(&at(&app, &network.replace("::1", ":1:2:3:4"))).await);
    wait(guess_anew(&at(&app, &network.replace("::1", "::2"))).await);
    // Entries before the last hop are not trusted.
    wait(guess_anew(&at(&app, &format!("{}, {network}", address()))).await);
}

#[tokio::test]
async fn replicas_share_their_counts() {
    let app = limited("RATE_LIMIT_SIGN_IN", "4/1h,off").await;
    let twin = TestApp::on(&app.database, |values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "4/1h,off");
    })
    .await;
    let network = address();
    for replica in [&app, &twin, &twin, &app] {
        wrong(guess_anew(&at(replica, &network)).await);
    }
    for replica in [&app, &twin] {
        wait(guess_anew(&at(replica, &network)).await);
    }
}

/// H03
#[tokio::test]
async fn without_redis_each_replica_counts_alone() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "5/1m,off");
        values.set("REDIS_URL", url);
    })
    .await;
    proxy.cut();
    let alone = || async { app.metric("tenantry_rate_counted_alone_total").await };
    // Until the replica notices, some calls may still be counted in Redis.
    until(10, || async {
        guess_anew(&at(&app, &address())).await;
        alone().await > Some(0.0)
    })
    .await;
    let (one, other) = (at(&app, &address()), at(&app, &address()));
    for _ in 0..5 {
        wrong(guess_anew(&one).await);
    }
    wait(guess_anew(&one).await);
    wrong(guess_anew(&other).await);
}

/// R23
#[tokio::test]
async fn refreshes_and_introspections_are_limited_separately() {
    let app = TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_REFRESH", "3/1m,off");
        values.set("RATE_LIMIT_INTROSPECTION", "2/1m,off");
    })
    .await;
    let acme = app.tenant("acme").await.with("x-forwarded-for", &address());
    let scan = || async {
        let request = IntrospectTokenRequest { token: unknown_id() };
        acme.auth().introspect_token(request).await
    };
    for _ in 0..2 {
        assert!(!scan().await.expect("an answer").into_inner().active);
    }
    wait(scan().await.expect_err("too many"));

    let refresh = || async {
        let request = RefreshRequest { refresh_token: "x".into(), ..RefreshRequest::default() };
        acme.auth().refresh(request).await
    };
    for _ in 0..3 {
        refused(refresh().await, Code::Unauthenticated, "TOKEN_INVALID");
    }
    wait(refresh().await.expect_err("too many"));
}

/// G05
#[tokio::test]
async fn redis_keys_are_short_and_expire_whatever_is_sent() {
    let app = limited("RATE_LIMIT_SIGN_IN", "100/1m,100/1m").await;
    let acme = at(&app, &address()).sign_up_tenant("acme").await;
    let tag = format!("{{{}}}", acme.tenant_id);
    let client = at(&app, &address());
    for length in [1, 50, 200] {
        let email = format!("{}@{}.test", unknown_id(), "x".repeat(length.min(60)));
        wrong(guess(&client, &email, "acme").await);
    }
    let listed = redis(&format!("KEYS *{tag}*")).await;
    let keys: Vec<_> = listed.lines().filter(|line| line.contains(&tag)).map(str::trim).collect();
    let counts = keys.iter().filter(|key| key.starts_with("rate:") || key.starts_with("guess:"));
    let counts: Vec<_> = counts.collect();
    assert!(counts.len() >= 4, "{listed}");
    for key in counts {
        assert!(key.len() < 128, "{key}");
        assert!(!key.contains('@'), "{key}");
        let ends = redis(&format!("PTTL {key}")).await;
        let ends: i64 =
            ends.lines().next().expect("a line").trim_start_matches(':').parse().expect("ms");
        assert!(ends > 0, "{key}: {ends}");
    }
}

/// N23: a time that no sequence of calls can produce counts as the latest possible one, and
/// passes.
#[tokio::test]
async fn no_value_of_a_key_blocks_a_tenant_forever() {
    let app = limited("RATE_LIMIT_SIGN_IN", "off,10/2s").await;
    let acme = at(&app, &address()).sign_up_tenant("acme").await;
    let key = format!("rate:{{{}}}:sign_in", acme.tenant_id);
    let huge = "9".repeat(1000);
    for value in ["9e99", "inf", "nan", "x", "100000000000000000", "9000000000000000", &huge] {
        redis(&format!("SET {key} {value}")).await;
        until(10, || async {
            let right = sign_in(&acme.email, "acme", PASSWORD);
            at(&app, &address()).auth().login(right).await.is_ok()
        })
        .await;
        let kept = redis(&format!("GET {key}")).await;
        assert!(!kept.contains(value), "{value:.20}");
        let ends = redis(&format!("PTTL {key}")).await;
        // -1 is a key that never ends. On a busy machine it may have ended: -2.
        assert!(!ends.starts_with(":-1"), "{value:.20}: {ends}");
    }
    redis(&format!("DEL {key}")).await;
    redis(&format!("LPUSH {key} x")).await;
    let right = sign_in(&acme.email, "acme", PASSWORD);
    at(&app, &address()).auth().login(right).await.expect("signs in");
    assert!(redis(&format!("TYPE {key}")).await.starts_with("+string"));
}
