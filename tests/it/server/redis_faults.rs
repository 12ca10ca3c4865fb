//! Redis is absent, unavailable or does not answer: every call still gets a correct response in
//! time.

use tenantry::proto::v1::{
    CheckRequest, LogoutRequest, RefreshRequest, RevokeAllSessionsRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, Proxy, TestApp, assert_refused, within_seconds};

/// Asserts the results that must be the same in every state of Redis: sign-in, Check, Refresh
/// and Logout succeed, and a signed-out session is refused.
async fn assert_core_calls_work(app: &TestApp, acme: &Client) {
    let session = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    session.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
    let check_request = |user: &str| CheckRequest {
        user_id: user.into(),
        permission: "user:read".into(),
        ..CheckRequest::default()
    };
    let admin_decision =
        acme.permissions().check(check_request(&acme.user_id)).await.expect("an answer");
    assert!(admin_decision.into_inner().allowed);
    // The id of a tenant is not the id of a user.
    let unknown_decision =
        acme.permissions().check(check_request(&acme.tenant_id)).await.expect("an answer");
    assert!(!unknown_decision.into_inner().allowed);

    let request = RefreshRequest {
        refresh_token: session.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let new_tokens = session.auth().refresh(request).await.expect("refreshed").into_inner();
    let session = session.with_token(&new_tokens.access_token);
    session.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
    session.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let reply = session.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

/// H01: the server starts and answers calls without Redis.
#[tokio::test]
async fn the_server_starts_and_works_without_redis() {
    let app = TestApp::with(|values| values.set("REDIS_URL", "redis://127.0.0.1:1")).await;
    let acme = within_seconds(10, app.create_tenant("acme")).await;
    within_seconds(10, assert_core_calls_work(&app, &acme)).await;
}

/// H02: first Redis is unavailable.
/// H04: then Redis hangs.
#[tokio::test]
async fn the_server_works_during_and_after_each_fault_of_redis() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    assert_core_calls_work(&app, &acme).await;
    for _ in 0..3 {
        proxy.cut();
        within_seconds(10, assert_core_calls_work(&app, &acme)).await;
        proxy.hold();
        within_seconds(10, assert_core_calls_work(&app, &acme)).await;
        proxy.pass();
        within_seconds(10, assert_core_calls_work(&app, &acme)).await;
    }
}

/// H02: a call that needs Redis several times waits for the timeout of Redis only once.
#[tokio::test]
async fn a_sign_in_waits_only_once_for_a_hanging_redis() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| {
        values.set("REDIS_URL", url);
        values.set("RATE_LIMIT_SIGN_IN", "600/1m,600/1m");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    let failed_commands = |error_type: &str| {
        let name = format!(
            "db_client_operation_duration_seconds_count{{db_system_name=\"redis\",\
             db_operation_name=\"EVALSHA\",error_type=\"{error_type}\"}}"
        );
        let app = &app;
        async move { app.metric(&name).await.unwrap_or_default() }
    };
    let timeouts_before = failed_commands("timeout").await;
    proxy.hold();
    for _ in 0..3 {
        app.anonymous().login("acme", &acme.email, PASSWORD).await;
    }
    // Without a fault each sign-in sends five commands: two rate limits, the start and end of
    // the failed-password counter, and the session. After the first timeout, the other commands
    // are skipped.
    let (timed_out, skipped) =
        (failed_commands("timeout").await - timeouts_before, failed_commands("skipped").await);
    assert!(timed_out >= 1.0 && skipped > timed_out, "{timed_out} {skipped}");
}

/// H05: a revocation without Redis is still effective.
#[tokio::test]
async fn a_session_revoked_while_redis_was_unavailable_stays_revoked() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with(|values| values.set("REDIS_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    let victim = acme.create_member("victim", &[]).await;
    victim.auth().who_am_i(WhoAmIRequest {}).await.expect("cached");
    proxy.cut();
    let request = RevokeAllSessionsRequest { user_id: victim.user_id.clone() };
    acme.sessions().revoke_all_sessions(request).await.expect("revoked");
    let reply = victim.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}
