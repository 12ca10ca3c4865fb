//! N06: the state and times of a session agree with the validity of its tokens.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{
    GetSessionRequest, IntrospectTokenRequest, ListSessionsRequest, LogoutRequest, RefreshRequest,
    RevokeAllSessionsRequest, RevokeSessionRequest, Session, SessionState, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{Client, Forge, PASSWORD, TestApp, assert_refused};

/// Changes times of a client's session directly in the database. `set` is SQL.
async fn update_session_times(app: &TestApp, client: &Client, set: &str) {
    let sql =
        format!("update sessions set {set} where session_id = '{}'", client.tokens.session_id);
    sqlx::query(AssertSqlSafe(sql))
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the times are changed");
}

/// Expires both tokens, as if the session had not been refreshed for a long time.
async fn expire_tokens(app: &TestApp, client: &Client) {
    let past_times = "refresh_expires_at = now() - interval '1 second',
                access_expires_at = now() - interval '1 hour'";
    update_session_times(app, client, past_times).await;
}

async fn get_session(caller: &Client, client: &Client) -> Session {
    let request = GetSessionRequest { session_id: client.tokens.session_id.clone() };
    let reply = caller.sessions().get_session(request).await.expect("a reply");
    reply.into_inner().session.expect("the session")
}

async fn list_session_ids(caller: &Client, user_id: &str) -> Vec<String> {
    let request = ListSessionsRequest { user_id: user_id.into(), ..Default::default() };
    let reply = caller.sessions().list_sessions(request).await.expect("sessions");
    reply.into_inner().sessions.into_iter().map(|session| session.id).collect()
}

async fn revoke_all(caller: &Client, user_id: &str) -> i32 {
    let request = RevokeAllSessionsRequest { user_id: user_id.into() };
    caller
        .sessions()
        .revoke_all_sessions(request)
        .await
        .expect("revoked")
        .into_inner()
        .revoked_count
}

/// N06: `expire_time` is the expiry of the refresh token.
#[tokio::test]
async fn a_session_without_refreshes_expires_with_its_tokens() {
    let app = TestApp::with_settings(|values| values.set("JWT_REFRESH_EXPIRES_IN", "2h")).await;
    let acme = app.create_tenant("acme").await;
    let idle_client = acme.create_member("ada", &[]).await;
    let live_client = app.anonymous().login("acme", &idle_client.email, PASSWORD).await;
    let session = get_session(&acme, &live_client).await;
    assert_eq!(session.state(), SessionState::Live);
    let claims: Value = Forge::read(&live_client.tokens.refresh_token).1;
    assert_eq!(session.expire_time.expect("a time").seconds, claims["exp"].as_i64().expect("exp"));
    let max_expire_time = session.max_expire_time.expect("a time").seconds;
    assert!(max_expire_time > session.expire_time.expect("a time").seconds);

    expire_tokens(&app, &idle_client).await;
    assert_eq!(get_session(&acme, &idle_client).await.state(), SessionState::Expired);
    assert_eq!(
        list_session_ids(&acme, &idle_client.user_id).await,
        std::slice::from_ref(&live_client.tokens.session_id)
    );
    let refresh_token = idle_client.tokens.refresh_token.clone();
    let introspect_request = IntrospectTokenRequest { token: refresh_token.clone() };
    let introspection =
        acme.auth().introspect_token(introspect_request).await.expect("an answer").into_inner();
    assert!(!introspection.active);
    let refresh_request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let reply = app.anonymous().auth().refresh(refresh_request).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    assert_eq!(
        get_session(&acme, &idle_client).await.state(),
        SessionState::Expired,
        "the refused refresh did not count as a reuse"
    );
}

/// N06: if the access token expires after the refresh token, the session lives as long as the
/// access token.
#[tokio::test]
async fn a_session_lives_as_long_as_its_longest_token() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    update_session_times(&app, &ada, "refresh_expires_at = now() - interval '1 second'").await;
    assert_eq!(get_session(&acme, &ada).await.state(), SessionState::Live);
    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
    assert_eq!(revoke_all(&acme, &ada.user_id).await, 1);
    let result = ada.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
}

/// N06: an expired session does not become a revoked session.
#[tokio::test]
async fn revoking_all_sessions_counts_only_live_ones() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let idle_client = acme.create_member("ada", &[]).await;
    let anonymous = app.anonymous();
    let sign_in = || anonymous.login(&acme.slug, &idle_client.email, PASSWORD);
    let (expired_client, signed_out_client, live_client) =
        (sign_in().await, sign_in().await, sign_in().await);
    expire_tokens(&app, &idle_client).await;
    update_session_times(&app, &expired_client, "expires_at = now() - interval '1 second'").await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signed out");

    assert_eq!(revoke_all(&acme, &idle_client.user_id).await, 1);
    assert_eq!(revoke_all(&acme, &idle_client.user_id).await, 0);
    let mut states = Vec::new();
    for client in [&idle_client, &expired_client, &signed_out_client, &live_client] {
        states.push(get_session(&acme, client).await.state());
    }
    let (expired, revoked) = (SessionState::Expired, SessionState::Revoked);
    assert_eq!(states, [expired, expired, revoked, revoked]);
    assert_eq!(app.audit_event_count(&acme.tenant_id, "sessions_revoked").await, 1);
}

/// N06: an expired session stays expired, and a repeated revocation has no effect.
#[tokio::test]
async fn revoking_an_ended_session_changes_and_records_nothing() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let idle_client = acme.create_member("ada", &[]).await;
    let live_client = app.anonymous().login(&acme.slug, &idle_client.email, PASSWORD).await;
    expire_tokens(&app, &idle_client).await;
    for client in [&idle_client, &live_client, &live_client] {
        let request = RevokeSessionRequest { session_id: client.tokens.session_id.clone() };
        acme.sessions().revoke_session(request).await.expect("revoking an ended session succeeds");
    }
    assert_eq!(get_session(&acme, &idle_client).await.state(), SessionState::Expired);
    assert_eq!(get_session(&acme, &live_client).await.state(), SessionState::Revoked);
    assert_eq!(app.audit_event_count(&acme.tenant_id, "session_revoked").await, 1);
}
