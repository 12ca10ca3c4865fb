//! Replicas whose clocks differ by more than the leeway.

use tenantry::proto::v1::{CheckRequest, RefreshRequest, WhoAmIRequest};
use tonic::{Code, transport::Channel};

use crate::harness::{Client, PASSWORD, ServerProcess, TestApp, assert_refused, wait_until};

/// Whether the replica behind `channel` accepts a token.
async fn accepts(channel: &Channel, client: &Client, token: &str) -> bool {
    let caller = client.on_server(channel).with_token(token);
    match caller.auth().who_am_i(WhoAmIRequest {}).await {
        Ok(_) => true,
        reply => {
            assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
            false
        }
    }
}

/// Starts a replica with a correct clock and a replica with a wrong clock, and compares how they
/// treat each other's tokens and sessions. `correct_accepts` is whether the correct replica accepts
/// the tokens of the wrong replica; `wrong_accepts` is the reverse.
async fn compare_replicas(wrong_by: &str, correct_accepts: bool, wrong_accepts: bool) {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let wrong_replica = ServerProcess::with_clock(&app.database, wrong_by).await;
    let anonymous = Client::anonymous(wrong_replica.channel.clone());

    // A06: the leeway is exactly 30 seconds.
    let wrong_client = anonymous.login("acme", &acme.email, PASSWORD).await;
    let token = &wrong_client.tokens.access_token;
    assert!(
        accepts(&wrong_replica.channel, &wrong_client, token).await,
        "a replica accepts its own token"
    );
    assert_eq!(accepts(&app.channel, &wrong_client, token).await, correct_accepts);
    let token = &acme.tokens.access_token;
    assert_eq!(accepts(&wrong_replica.channel, &acme, token).await, wrong_accepts);

    // The times of a refreshed token come from Postgres's clock, on every replica.
    let accepting_client =
        acme.on_server(if wrong_accepts { &wrong_replica.channel } else { &app.channel });
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
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    for channel in [&app.channel, &wrong_replica.channel] {
        wait_until(5, || async { !accepts(channel, &acme, &new_tokens.access_token).await }).await;
    }
    let request = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let decision =
        wrong_client.on_server(&wrong_replica.channel).permissions().check(request).await;
    assert!(decision.expect("a decision").into_inner().allowed);

    let warning = "the clock of this machine differs from the clock of Postgres; replicas refuse the \
                   tokens of a replica with a wrong clock";
    wait_until(20, || async { !wrong_replica.log_events(warning).is_empty() }).await;
    let log = wrong_replica.stop().await;
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

/// J07: the clock of the replica is 90 seconds fast.
#[tokio::test]
async fn tokens_of_a_replica_with_a_fast_clock_are_accepted_only_there() {
    compare_replicas("+90s", false, true).await;
}

/// J07: the clock of the replica is 90 seconds slow.
#[tokio::test]
async fn a_replica_with_a_slow_clock_refuses_tokens_from_its_future() {
    compare_replicas("-90s", true, false).await;
}
