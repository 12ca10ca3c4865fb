//! Redis is absent, unavailable or does not answer: every answer is still correct and fast.

use tenantry::proto::v1::{
    CheckRequest, LogoutRequest, RefreshRequest, RevokeAllSessionsRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, Proxy, TestApp, refused, within};

/// Asserts the answers that must be the same in every state of Redis: sign-in, Check, Refresh
/// and Logout succeed, and a signed-out session is refused.
async fn assert_core_calls_work(app: &TestApp, acme: &Client) {
    let ada = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
    let check = |user: &str| CheckRequest {
        user_id: user.into(),
        permission: "user:read".into(),
        ..CheckRequest::default()
    };
    let reader = acme.permissions().check(check(&acme.user_id)).await.expect("an answer");
    assert!(reader.into_inner().allowed);
    let other = acme.permissions().check(check(&acme.tenant_id)).await.expect("an answer");
    assert!(!other.into_inner().allowed);

    let request = RefreshRequest {
        refresh_token: ada.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let new_tokens = ada.auth().refresh(request).await.expect("refreshes").into_inner();
    let ada = ada.with_token(&new_tokens.access_token);
    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let reply = ada.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

/// H01: the server starts and answers calls without Redis.
#[tokio::test]
async fn the_service_starts_and_works_without_redis() {
    let app = TestApp::with(|values| values.set("REDIS_URL", "redis://127.0.0.1:1")).await;
    let acme = within(10, app.tenant("acme")).await;
    within(10, assert_core_calls_work(&app, &acme)).await;
}

/// H02, H04: the server answers calls while Redis is down or hangs, and after each fault.
#[tokio::test]
async fn the_service_works_while_redis_is_unavailable_or_hangs_and_afterwards() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let acme = app.tenant("acme").await;
    assert_core_calls_work(&app, &acme).await;
    for _ in 0..3 {
        proxy.cut();
        within(10, assert_core_calls_work(&app, &acme)).await;
        proxy.hold();
        within(10, assert_core_calls_work(&app, &acme)).await;
        proxy.pass();
        within(10, assert_core_calls_work(&app, &acme)).await;
    }
}

/// H02: a call that needs Redis several times waits for its timeout only once.
#[tokio::test]
async fn a_sign_in_waits_only_once_for_a_redis_that_hangs() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| {
        values.set("REDIS_URL", url);
        values.set("RATE_LIMIT_SIGN_IN", "600/1m,600/1m");
    })
    .await;
    let acme = app.tenant("acme").await;
    let failed_commands = |error_type: &str| {
        let name = format!(
            "db_client_operation_duration_seconds_count{{db_system_name=\"redis\",\
             db_operation_name=\"EVALSHA\",error_type=\"{error_type}\"}}"
        );
        let app = &app;
        async move { app.metric(&name).await.unwrap_or_default() }
    };
    let before = failed_commands("timeout").await;
    proxy.hold();
    for _ in 0..3 {
        app.anonymous().login("acme", &acme.email, PASSWORD).await;
    }
    // Without a fault each sign-in sends five commands: two rate limits, the start and end of
    // the failed-password counter, and the session.
    let (timed_out, skipped) =
        (failed_commands("timeout").await - before, failed_commands("skipped").await);
    assert!(timed_out >= 1.0 && skipped > timed_out, "{timed_out} {skipped}");
}

/// H05: a revocation without Redis is still effective.
#[tokio::test]
async fn a_session_revoked_while_redis_was_unavailable_stays_revoked() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let acme = app.tenant("acme").await;
    let victim = acme.member("victim", &[]).await;
    victim.auth().who_am_i(WhoAmIRequest {}).await.expect("cached");
    proxy.cut();
    let request = RevokeAllSessionsRequest { user_id: victim.user_id.clone() };
    acme.sessions().revoke_all_sessions(request).await.expect("ended");
    let reply = victim.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}
