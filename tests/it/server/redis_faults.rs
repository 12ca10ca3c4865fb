//! Redis is absent, unavailable or does not answer: every call still gets a correct response in
//! time.

use tenantry::proto::v1::{
    CheckRequest, LoginRequest, LogoutRequest, RefreshRequest, RevokeAllSessionsRequest,
    WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{
    Client, PASSWORD, PrivateRedis, Proxy, ServerProcess, TestApp, assert_refused, wait_until,
    within_seconds,
};

/// Asserts the results that must be the same in every state of Redis: sign-in, Check, Refresh
/// and Logout succeed, and a signed-out session is refused.
pub(super) async fn assert_core_calls_work(app: &TestApp, acme: &Client) {
    let session = app.anonymous().login(&acme.slug, &acme.email, PASSWORD).await;
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
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", "redis://127.0.0.1:1")).await;
    let acme = within_seconds(10, app.create_tenant("acme")).await;
    within_seconds(10, assert_core_calls_work(&app, &acme)).await;
}

/// H02: first Redis is unavailable.
/// H04: then Redis hangs.
#[tokio::test]
async fn the_server_works_during_and_after_each_fault_of_redis() {
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", url)).await;
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
    let app = TestApp::with_settings(|values| {
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
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    let victim = acme.create_member("victim", &[]).await;
    victim.auth().who_am_i(WhoAmIRequest {}).await.expect("cached");
    proxy.cut();
    let request = RevokeAllSessionsRequest { user_id: victim.user_id.clone() };
    acme.sessions().revoke_all_sessions(request).await.expect("revoked");
    let reply = victim.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

/// N34: without Redis, sign-ins with the correct password are not limited, and wrong passwords are.
#[tokio::test]
async fn without_redis_only_wrong_passwords_are_limited() {
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", "redis://127.0.0.1:1")).await;
    let acme = app.create_tenant("acme").await;
    for _ in 0..25 {
        app.anonymous().login("acme", &acme.email, PASSWORD).await;
    }
    let sign_in = |password: &str| LoginRequest {
        organization_slug: "acme".into(),
        email: acme.email.clone(),
        password: password.into(),
        ..LoginRequest::default()
    };
    for _ in 0..10 {
        let reply = app.anonymous().auth().login(sign_in("not this one")).await;
        assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    let reply = app.anonymous().auth().login(sign_in(PASSWORD)).await;
    assert_refused(reply, Code::ResourceExhausted, "RATE_LIMITED");
}

/// N34: one warning and one gauge show that Redis is lost, and one line that it is back.
#[tokio::test]
async fn the_log_says_when_redis_is_lost_and_when_it_is_back() {
    const LOST: &str = "Redis is unavailable; calls continue without it";
    const BACK: &str = "Redis is available again";
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", url.clone())).await;
    wait_until(10, || async { app.metric("tenantry_redis_up").await == Some(1.0) }).await;
    let server = ServerProcess::start(&[("REDIS_URL", &url)]).await;
    for faults in 1..=2 {
        if faults == 1 {
            proxy.cut();
        } else {
            proxy.hold();
        }
        wait_until(20, || async { server.log_events(LOST).len() == faults }).await;
        wait_until(10, || async { app.metric("tenantry_redis_up").await == Some(0.0) }).await;
        proxy.pass();
        wait_until(20, || async { server.log_events(BACK).len() == faults }).await;
        wait_until(10, || async { app.metric("tenantry_redis_up").await == Some(1.0) }).await;
    }
    let warning = &server.log_events(LOST)[0];
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["redis"], url.trim_start_matches("redis://"));
}

/// N34: the log says once that Redis refuses writes because its memory is full, and once that it
/// accepts them again.
#[tokio::test]
async fn the_log_says_when_redis_is_full_and_when_it_accepts_writes_again() {
    const FULL: &str = "Redis has no memory left and refuses writes; calls continue without it. \
                        Raise its maxmemory";
    const BACK: &str = "Redis accepts writes again";
    let redis = PrivateRedis::start().await;
    let server = ServerProcess::start(&[("REDIS_URL", &redis.url())]).await;
    let client = Client::anonymous(server.channel.clone());
    let sign_in_fails =
        || async { client.try_login("acme", "ada@acme.test", PASSWORD).await.is_err() };
    assert!(sign_in_fails().await, "there is no such tenant");
    redis.ask("CONFIG SET maxmemory 1").await;
    // Each sign-in is counted in Redis, which is a write.
    for _ in 0..3 {
        sign_in_fails().await;
    }
    wait_until(20, || async { !server.log_events(FULL).is_empty() }).await;
    redis.ask("CONFIG SET maxmemory 0").await;
    wait_until(30, || async { !server.log_events(BACK).is_empty() }).await;
    assert_eq!((server.log_events(FULL).len(), server.log_events(BACK).len()), (1, 1));
}

/// N34: the warning has the cause: no server listens at the address, the password is wrong, or
/// Redis does not respond.
#[tokio::test]
async fn the_warning_has_the_cause_why_redis_is_unavailable() {
    let proxy = Proxy::redis().await;
    let wrong_password = proxy.redis_url().replace("redis://", "redis://nobody:canary@");
    let no_tls = proxy.redis_url().replace("redis://", "rediss://");
    for (url, cause) in [
        ("redis://127.0.0.1:1", "can't connect"),
        (&wrong_password, "the user or the password is wrong"),
        // Redis without TLS does not answer a TLS handshake.
        (&no_tls, "no answer in time"),
    ] {
        let server = ServerProcess::start(&[("REDIS_URL", url)]).await;
        let message = "Redis is unavailable; calls continue without it";
        wait_until(20, || async { !server.log_events(message).is_empty() }).await;
        let text = server.log_events(message)[0]["cause"].as_str().expect("a cause").to_owned();
        assert!(text.contains(cause) && !text.contains("canary"), "{url}: {text}");
    }
}
