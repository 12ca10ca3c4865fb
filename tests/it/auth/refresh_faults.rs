//! Refresh while the network to Postgres fails before or after the commit.

use tenantry::proto::v1::{RefreshRequest, WhoAmIRequest};
use tonic::Code;

use super::refresh::{RefreshResult, assert_refresh_refused, refresh, refresh_request};
use crate::harness::{Client, Fault, Forge, Proxy, TestApp, assert_refused, within_seconds};

/// A server that reaches Postgres through a fault-injecting proxy, and a signed-in client.
async fn server_behind_proxy() -> (TestApp, Proxy, Client) {
    let direct = TestApp::spawn().await;
    let acme = direct.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app =
        TestApp::on_database(&direct.database, |values| values.set("DATABASE_URL", url)).await;
    let acme = acme.on_server(&app.channel);
    (app, proxy, acme)
}

/// The `jti` of a token. Only the statement that marks the token as used contains the
/// token's `jti`.
fn jti(token: &str) -> String {
    Forge::read(token).1["jti"].as_str().expect("jti").to_owned()
}

/// Repeats the refresh until Postgres is available again.
async fn refresh_when_postgres_is_back(client: &Client, request: RefreshRequest) -> RefreshResult {
    within_seconds(10, async {
        loop {
            let reply = client.auth().refresh(request.clone()).await;
            if !reply.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                return reply;
            }
        }
    })
    .await
}

async fn stored_jti(app: &TestApp) -> String {
    let query = "select refresh_jti from sessions";
    sqlx::query_scalar(query)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("one session")
}

/// C10: the retry has the same request id.
/// C12: the connection is lost after the commit and before the reply.
#[tokio::test]
async fn with_a_request_id_a_retry_after_a_lost_reply_gets_the_same_tokens() {
    let (app, proxy, acme) = server_behind_proxy().await;
    let first_request = refresh_request(&acme.tokens.refresh_token, "x");
    proxy.fault_when_sent(jti(&first_request.refresh_token), Fault::HoldReplies);
    let mut auth = acme.auth();
    tokio::select! {
        reply = auth.refresh(first_request.clone()) => panic!("not held: {reply:?}"),
        () = proxy.wait_until_held() => {}
    }
    let committed_jti = stored_jti(&app).await;
    assert_ne!(committed_jti, jti(&first_request.refresh_token), "the refresh is committed");
    proxy.cut();
    proxy.pass();

    let reply = refresh_when_postgres_is_back(&acme, first_request)
        .await
        .expect("the same tokens")
        .into_inner();
    assert_eq!(jti(&reply.refresh_token), committed_jti);
    refresh(&acme, &reply.refresh_token).await;
}

/// C12: without a request id, the retry is a reuse of a used token.
#[tokio::test]
async fn without_a_request_id_a_retry_after_a_lost_reply_ends_the_session() {
    let (app, proxy, acme) = server_behind_proxy().await;
    let first_request = refresh_request(&acme.tokens.refresh_token, "");
    proxy.fault_when_sent(jti(&first_request.refresh_token), Fault::HoldReplies);
    let call = async { acme.auth().refresh(first_request.clone()).await };
    let cut_connections = async {
        proxy.wait_until_held().await;
        proxy.cut();
    };
    let (reply, ()) = within_seconds(10, async { tokio::join!(call, cut_connections) }).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_ne!(
        stored_jti(&app).await,
        jti(&first_request.refresh_token),
        "the refresh is committed"
    );
    proxy.pass();

    let reply = refresh_when_postgres_is_back(&acme, first_request).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let query = "select revoke_reason from sessions";
    let reason: String = sqlx::query_scalar(query)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("revoked");
    assert_eq!(reason, "refresh_reuse");
}

/// C13: a refresh that was not committed does not mark the token as used.
#[tokio::test]
async fn a_token_stays_valid_when_its_refresh_did_not_reach_postgres() {
    let (app, proxy, acme) = server_behind_proxy().await;
    let token = acme.tokens.refresh_token.clone();
    proxy.fault_when_sent(jti(&token), Fault::Cut);
    let reply = acme.auth().refresh(refresh_request(&token, "")).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(stored_jti(&app).await, jti(&token));
    proxy.pass();
    let reply = refresh_when_postgres_is_back(&acme, refresh_request(&token, ""))
        .await
        .expect("the token is still valid");
    let reply = reply.into_inner();
    assert_eq!(stored_jti(&app).await, jti(&reply.refresh_token));
    assert_refresh_refused(&acme, &token).await;
}

/// C12: the cancelled call and its retry give the session one new token.
#[tokio::test]
async fn a_cancelled_refresh_can_be_retried() {
    let (app, proxy, acme) = server_behind_proxy().await;
    let token = acme.tokens.refresh_token.clone();
    proxy.fault_when_sent(jti(&token), Fault::Hold);
    let mut auth = acme.auth();
    tokio::select! {
        reply = auth.refresh(refresh_request(&token, "x")) => panic!("not held: {reply:?}"),
        () = proxy.wait_until_held() => {}
    }
    proxy.pass();
    // Postgres gets the statement of the cancelled call and the statement of the retry. They have
    // the same request id, so the session gets one new token.
    let reply = within_seconds(10, acme.auth().refresh(refresh_request(&token, "x"))).await;
    let reply = reply.expect("refreshes").into_inner();
    assert_eq!(stored_jti(&app).await, jti(&reply.refresh_token));
    let caller = acme.with_token(&reply.access_token);
    caller.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
}
