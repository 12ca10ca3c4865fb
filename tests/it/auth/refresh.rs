//! AuthService.Refresh: each refresh token works once, and a session never has two valid refresh
//! tokens.

use sqlx::PgConnection;
use tenantry::proto::v1::{
    ListEventsRequest, RefreshRequest, RefreshResponse, RoleLevel, UnassignRoleRequest,
    WhoAmIRequest,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, Forge, TestApp, assert_refused, rounds};

pub(super) type RefreshResult = Result<Response<RefreshResponse>, Status>;

pub(super) fn refresh_request(token: &str, request_id: &str) -> RefreshRequest {
    RefreshRequest { refresh_token: token.into(), request_id: request_id.into() }
}

/// Refreshes without a request id and returns the new tokens.
pub(super) async fn refresh(client: &Client, token: &str) -> RefreshResponse {
    let reply = client.auth().refresh(refresh_request(token, "")).await;
    reply.expect("refreshes").into_inner()
}

pub(super) async fn assert_refresh_refused(client: &Client, token: &str) {
    let reply = client.auth().refresh(refresh_request(token, "")).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

pub(super) async fn assert_signed_out(client: &Client, access_token: &str) {
    let caller = client.with_token(access_token);
    let reply = caller.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

/// Moves the time of a session's last refresh into the past.
async fn age_last_refresh(owner_connection: &mut PgConnection, session_id: &str, seconds: i32) {
    let result = sqlx::query(
        "update sessions set last_used_at = last_used_at - make_interval(secs => $2)
         where session_id = $1::uuid",
    )
    .bind(session_id)
    .bind(seconds)
    .execute(owner_connection)
    .await;
    assert_eq!(result.expect("the update succeeds").rows_affected(), 1);
}

/// C01: a refresh marks the old token as used and returns new tokens.
#[tokio::test]
async fn a_refresh_returns_the_next_tokens_of_the_same_session() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let next = refresh(&acme, &acme.tokens.refresh_token).await;
    assert_eq!(next.session_id, acme.tokens.session_id);
    let jti = |token: &str| Forge::read(token).1["jti"].clone();
    assert_ne!(jti(&next.access_token), jti(&acme.tokens.access_token));
    assert_ne!(jti(&next.refresh_token), jti(&acme.tokens.refresh_token));

    let caller = acme.with_token(&next.access_token);
    let me = caller.identity().await;
    assert_eq!(me.session_id, acme.tokens.session_id);
    let query = "select spent_jti from sessions where session_id = $1::uuid";
    let used_jti: String = sqlx::query_scalar(query)
        .bind(&next.session_id)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("the session");
    assert_eq!(jti(&acme.tokens.refresh_token), used_jti.as_str());
    refresh(&acme, &next.refresh_token).await;
}

/// C02: a reuse ends only the session of the token.
#[tokio::test]
async fn a_reused_token_ends_its_session_and_is_audited() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let other_session = app.anonymous().login("acme", &acme.email, crate::harness::PASSWORD).await;
    let next = refresh(&acme, &acme.tokens.refresh_token).await;

    assert_refresh_refused(&acme, &acme.tokens.refresh_token).await;
    assert_refresh_refused(&acme, &next.refresh_token).await;
    assert_signed_out(&acme, &next.access_token).await;
    assert_signed_out(&acme, &acme.tokens.access_token).await;
    refresh(&other_session, &other_session.tokens.refresh_token).await;

    let query = "select session_id::text, to_jsonb(e)::text from audit_events e
                 where kind = 'refresh_reuse'";
    let events: Vec<(String, String)> =
        sqlx::query_as(query).fetch_all(&mut app.owner_connection().await).await.expect("events");
    let [(session, event)] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!(*session, acme.tokens.session_id);
    assert!(!event.contains("eyJ"), "the event contains a token: {event}");
    let request = ListEventsRequest { filter: "kind = refresh_reuse".into(), ..Default::default() };
    let response = other_session.audit().list_events(request).await.expect("events").into_inner();
    assert_eq!(response.events[0].ip, "127.0.0.1");
}

/// C03: the end of the session is stored in Postgres.
#[tokio::test]
async fn a_session_ended_by_reuse_stays_ended_after_a_restart() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let next = refresh(&acme, &acme.tokens.refresh_token).await;
    assert_refresh_refused(&acme, &acme.tokens.refresh_token).await;
    let database = app.database.clone();
    app.stop().await;

    let restarted = TestApp::on_database(&database, |_| {}).await;
    let acme = acme.on_server(&restarted.channel);
    assert_refresh_refused(&acme, &next.refresh_token).await;
    assert_signed_out(&acme, &next.access_token).await;
}

/// C04: an older token is a reuse, even with its original request id.
#[tokio::test]
async fn only_the_last_used_token_can_be_retried() {
    for request_id in ["", "first"] {
        let app = TestApp::shared();
        let acme = app.create_tenant("acme").await;
        let first_token = &acme.tokens.refresh_token;
        let second_reply = acme.auth().refresh(refresh_request(first_token, "first")).await;
        let second_reply = second_reply.expect("refreshes").into_inner();
        let third_reply = refresh(&acme, &second_reply.refresh_token).await;

        let reply = acme.auth().refresh(refresh_request(first_token, request_id)).await;
        assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
        assert_refresh_refused(&acme, &third_reply.refresh_token).await;
        assert_signed_out(&acme, &third_reply.access_token).await;
    }
}

/// C05: of concurrent refreshes of one token on two replicas, never two return new tokens.
#[tokio::test]
async fn of_many_concurrent_refreshes_at_most_one_succeeds_and_the_session_ends() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    for _ in 0..rounds(60) {
        let session = app.anonymous().login("acme", &acme.email, crate::harness::PASSWORD).await;
        let clients = [session.clone(), session.on_server(&second_replica.channel)];
        let calls = (0..50).map(|n| {
            let mut auth = clients[n % 2].auth();
            let request = refresh_request(&session.tokens.refresh_token, "");
            async move { auth.refresh(request).await }
        });
        let replies: Vec<RefreshResult> = futures::future::join_all(calls).await;
        let (succeeded, failed): (Vec<_>, Vec<_>) = replies.into_iter().partition(Result::is_ok);
        assert_eq!(succeeded.len(), 1, "number of successful refreshes");
        for reply in failed {
            assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
        }
        for reply in succeeded {
            assert_refresh_refused(
                &session,
                &reply.expect("a successful refresh").into_inner().refresh_token,
            )
            .await;
        }
        assert_signed_out(&clients[1], &session.tokens.access_token).await;
    }
}

/// C10: for 10 seconds, a retry with the same request id returns the first reply again.
#[tokio::test]
async fn a_retry_of_the_same_request_gets_the_same_new_tokens() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let first_request = refresh_request(&acme.tokens.refresh_token, "x");
    let reply = acme.auth().refresh(first_request.clone()).await.expect("refreshes").into_inner();
    age_last_refresh(&mut app.owner_connection().await, &acme.tokens.session_id, 8).await;
    for client in [acme.clone(), acme.on_server(&second_replica.channel)] {
        let repeated = client.auth().refresh(first_request.clone()).await;
        assert_eq!(repeated.expect("the same reply").into_inner(), reply);
    }
    refresh(&acme, &reply.refresh_token).await;
}

/// C10: a used token that is sent again ends the session in three cases: the request id is another
/// one, 10 seconds have passed, or the new refresh token was used.
#[tokio::test]
async fn a_repeat_that_is_no_retry_is_a_reuse() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    for (first_id, repeat_id, age_seconds, new_token_was_used) in [
        ("x", "y", 0, false),
        ("x", "", 0, false),
        ("", "x", 0, false),
        ("", "", 0, false),
        ("x", "x", 11, false),
        ("x", "x", 0, true),
    ] {
        let case = format!("{first_id:?} {repeat_id:?} {age_seconds} {new_token_was_used}");
        let session =
            app.anonymous().login(&acme.slug, &acme.email, crate::harness::PASSWORD).await;
        let token = &session.tokens.refresh_token;
        let reply = session.auth().refresh(refresh_request(token, first_id)).await;
        let mut newest_token = reply.expect("refreshes").into_inner().refresh_token;
        if new_token_was_used {
            newest_token = refresh(&session, &newest_token).await.refresh_token;
        }
        age_last_refresh(
            &mut app.owner_connection().await,
            &session.tokens.session_id,
            age_seconds,
        )
        .await;
        let repeat = session.auth().refresh(refresh_request(token, repeat_id)).await;
        assert_eq!(repeat.expect_err(&case).code(), Code::Unauthenticated, "{case}");
        assert_refresh_refused(&session, &newest_token).await;
    }
}

/// C16: the new access token has the user's current roles.
#[tokio::test]
async fn a_refresh_reads_the_roles_again() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("reader", &["user:read"]).await;
    let roles = |token: &str| Forge::read(token).1["roles"].clone();
    assert_eq!(roles(&member.tokens.access_token), serde_json::json!(["reader"]));

    let role = acme.create_role("writer", RoleLevel::Member, &["user:update"]).await;
    acme.assign(&member.user_id, &role).await;
    let tokens_with_both_roles = refresh(&member, &member.tokens.refresh_token).await;
    assert_eq!(
        roles(&tokens_with_both_roles.access_token),
        serde_json::json!(["reader", "writer"])
    );

    let request = UnassignRoleRequest {
        user_id: member.user_id.clone(),
        role_id: role,
        ..Default::default()
    };
    acme.roles().unassign_role(request).await.expect("unassigned");
    let tokens_with_one_role = refresh(&member, &tokens_with_both_roles.refresh_token).await;
    assert_eq!(roles(&tokens_with_one_role.access_token), serde_json::json!(["reader"]));
}

/// C17: a refresh in the wrong tenant changes no session.
#[tokio::test]
async fn a_token_sent_to_another_tenant_is_refused_but_stays_valid() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let next = refresh(&a, &a.tokens.refresh_token).await;
    for (key, tenant) in [
        ("x-tenant-id", b.tenant_id.as_str()),
        ("x-organization-slug", "b"),
        ("x-tenant-id", "nowhere"),
    ] {
        let client = app.anonymous().with_metadata(key, tenant);
        assert_refresh_refused(&client, &next.refresh_token).await;
        assert_refresh_refused(&client, &a.tokens.refresh_token).await;
    }
    let client = app.anonymous().with_metadata("x-tenant-id", &a.tenant_id);
    refresh(&client, &next.refresh_token).await;
}
