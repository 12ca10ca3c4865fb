//! Replicas whose clocks are wrong by more than the leeway.

use tenantry::proto::v1::{CheckRequest, RefreshRequest, WhoAmIRequest};
use tonic::{Code, transport::Channel};

use crate::harness::{Client, PASSWORD, Serving, TestApp, refused, until};

async fn accepts(channel: &Channel, client: &Client, token: &str) -> bool {
    let there = client.on(channel).with_token(token);
    match there.auth().who_am_i(WhoAmIRequest {}).await {
        Ok(_) => true,
        reply => {
            refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
            false
        }
    }
}

/// Compares how two replicas judge each other's tokens, sessions and decisions. `theirs` is a
/// token of the replica with the wrong clock.
async fn compare_replicas(wrong_by: &str, theirs_is_accepted: bool, ours_is_accepted: bool) {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let wrong = Serving::with_clock(&app.database, wrong_by).await;
    let there = Client::anonymous(wrong.channel.clone());

    // R24: the leeway is exactly half a minute.
    let theirs = there.login("acme", &acme.email, PASSWORD).await;
    let token = &theirs.tokens.access_token;
    assert!(accepts(&wrong.channel, &theirs, token).await, "a replica accepts its own token");
    assert_eq!(accepts(&app.channel, &theirs, token).await, theirs_is_accepted);
    let token = &acme.tokens.access_token;
    assert_eq!(accepts(&wrong.channel, &acme, token).await, ours_is_accepted);

    // The times of a refreshed token come from Postgres's clock, on every replica.
    let refreshing = acme.on(if ours_is_accepted { &wrong.channel } else { &app.channel });
    let again = RefreshRequest {
        refresh_token: acme.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let next = refreshing.auth().refresh(again.clone()).await.expect("refreshed").into_inner();
    assert!(accepts(&app.channel, &acme, &next.access_token).await);

    // The end of a session on one replica reaches the other.
    let reused = refreshing.auth().refresh(again).await;
    refused(reused, Code::Unauthenticated, "TOKEN_INVALID");
    for channel in [&app.channel, &wrong.channel] {
        until(5, || async { !accepts(channel, &acme, &next.access_token).await }).await;
    }
    let question = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let decided = theirs.on(&wrong.channel).permissions().check(question).await;
    assert!(decided.expect("decided").into_inner().allowed);

    let log = wrong.stop().await;
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

/// J07
#[tokio::test]
async fn a_fast_clock_makes_tokens_that_only_its_own_replica_accepts() {
    compare_replicas("+90s", false, true).await;
}

/// J07
#[tokio::test]
async fn a_slow_clock_refuses_tokens_from_its_future() {
    compare_replicas("-90s", true, false).await;
}
