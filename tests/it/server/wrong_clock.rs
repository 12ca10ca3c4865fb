//! Replicas whose clocks differ by more than the leeway.

use tenantry::proto::v1::{CheckRequest, RefreshRequest, WhoAmIRequest};
use tonic::{Code, transport::Channel};

use crate::harness::{Client, PASSWORD, Serving, TestApp, refused, until};

async fn accepts(channel: &Channel, client: &Client, token: &str) -> bool {
    let caller = client.on(channel).with_token(token);
    match caller.auth().who_am_i(WhoAmIRequest {}).await {
        Ok(_) => true,
        reply => {
            refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
            false
        }
    }
}

/// Compares the answers of two replicas to each other's tokens and sessions. `theirs` is a token
/// of the replica with the wrong clock, and `ours` a token of the replica with the correct clock.
async fn compare_replicas(wrong_by: &str, theirs_is_accepted: bool, ours_is_accepted: bool) {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let wrong = Serving::with_clock(&app.database, wrong_by).await;
    let wrong_client = Client::anonymous(wrong.channel.clone());

    // R24: the leeway is exactly 30 seconds.
    let theirs = wrong_client.login("acme", &acme.email, PASSWORD).await;
    let token = &theirs.tokens.access_token;
    assert!(accepts(&wrong.channel, &theirs, token).await, "a replica accepts its own token");
    assert_eq!(accepts(&app.channel, &theirs, token).await, theirs_is_accepted);
    let token = &acme.tokens.access_token;
    assert_eq!(accepts(&wrong.channel, &acme, token).await, ours_is_accepted);

    // The times of a refreshed token come from Postgres's clock, on every replica.
    let accepting_client = acme.on(if ours_is_accepted { &wrong.channel } else { &app.channel });
    let refresh_request = RefreshRequest {
        refresh_token: acme.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let new_tokens = accepting_client
        .auth()
        .refresh(refresh_request.clone())
        .await
        .expect("refreshed")
        .into_inner();
    assert!(accepts(&app.channel, &acme, &new_tokens.access_token).await);

    // A session that ends on one replica also ends on the other.
    let reply = accepting_client.auth().refresh(refresh_request).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    for channel in [&app.channel, &wrong.channel] {
        until(5, || async { !accepts(channel, &acme, &new_tokens.access_token).await }).await;
    }
    let question = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let decision = theirs.on(&wrong.channel).permissions().check(question).await;
    assert!(decision.expect("decided").into_inner().allowed);

    let log = wrong.stop().await;
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

/// J07: tokens from a clock that is 90 s fast.
#[tokio::test]
async fn a_fast_clock_makes_tokens_that_only_its_own_replica_accepts() {
    compare_replicas("+90s", false, true).await;
}

/// J07: a clock that is 90 s slow.
#[tokio::test]
async fn a_slow_clock_refuses_tokens_from_its_future() {
    compare_replicas("-90s", true, false).await;
}
