//! N06: the state and times of a session agree with the validity of its tokens.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{
    GetSessionRequest, IntrospectTokenRequest, ListSessionsRequest, LogoutRequest, RefreshRequest,
    RevokeAllSessionsRequest, RevokeSessionRequest, Session, SessionState, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{Client, Forge, PASSWORD, TestApp, refused};

/// Changes times of a client's session with SQL.
async fn update_session_times(app: &TestApp, of: &Client, set: &str) {
    let sql = format!("update sessions set {set} where session_id = '{}'", of.tokens.session_id);
    sqlx::query(AssertSqlSafe(sql)).execute(&mut app.owner().await).await.expect("shifted");
}

/// Expires both tokens, as if the session had not been refreshed for a long time.
async fn expire_tokens(app: &TestApp, of: &Client) {
    let over = "refresh_expires_at = now() - interval '1 second',
                access_expires_at = now() - interval '1 hour'";
    update_session_times(app, of, over).await;
}

async fn session(by: &Client, of: &Client) -> Session {
    let request = GetSessionRequest { session_id: of.tokens.session_id.clone() };
    let reply = by.sessions().get_session(request).await.expect("a reply");
    reply.into_inner().session.expect("the session")
}

async fn listed(by: &Client, user_id: &str) -> Vec<String> {
    let request = ListSessionsRequest { user_id: user_id.into(), ..Default::default() };
    let reply = by.sessions().list_sessions(request).await.expect("sessions");
    reply.into_inner().sessions.into_iter().map(|session| session.id).collect()
}

async fn revoke_all(by: &Client, user_id: &str) -> i32 {
    let request = RevokeAllSessionsRequest { user_id: user_id.into() };
    by.sessions().revoke_all_sessions(request).await.expect("ended").into_inner().revoked_count
}

/// N06: the state of a session agrees with its tokens.
#[tokio::test]
async fn a_session_without_refreshes_expires_with_its_tokens() {
    let app = TestApp::with(|values| values.set("JWT_REFRESH_EXPIRES_IN", "2h")).await;
    let acme = app.tenant("acme").await;
    let idle = acme.member("ada", &[]).await;
    let live = app.anonymous().login("acme", &idle.email, PASSWORD).await;
    let shown = session(&acme, &live).await;
    assert_eq!(shown.state(), SessionState::Live);
    let claims: Value = Forge::read(&live.tokens.refresh_token).1;
    assert_eq!(shown.expire_time.expect("a time").seconds, claims["exp"].as_i64().expect("exp"));
    let latest = shown.max_expire_time.expect("a time").seconds;
    assert!(latest > shown.expire_time.expect("a time").seconds);

    expire_tokens(&app, &idle).await;
    assert_eq!(session(&acme, &idle).await.state(), SessionState::Expired);
    assert_eq!(listed(&acme, &idle.user_id).await, std::slice::from_ref(&live.tokens.session_id));
    let refresh_token = idle.tokens.refresh_token.clone();
    let token = IntrospectTokenRequest { token: refresh_token.clone() };
    let introspection = acme.auth().introspect_token(token).await.expect("an answer").into_inner();
    assert!(!introspection.active);
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let reply = app.anonymous().auth().refresh(request).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    assert_eq!(
        session(&acme, &idle).await.state(),
        SessionState::Expired,
        "the refused refresh did not count as a reuse"
    );
}

/// N06: a session whose access token outlives its refresh token lives as long as the access
/// token.
#[tokio::test]
async fn a_session_lives_as_long_as_its_longest_token() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    update_session_times(&app, &ada, "refresh_expires_at = now() - interval '1 second'").await;
    assert_eq!(session(&acme, &ada).await.state(), SessionState::Live);
    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
    assert_eq!(revoke_all(&acme, &ada.user_id).await, 1);
    let who = ada.auth().who_am_i(WhoAmIRequest {}).await;
    refused(who, Code::Unauthenticated, "TOKEN_INVALID");
}

/// N06: the state of a session agrees with its tokens.
#[tokio::test]
async fn revoking_all_sessions_counts_only_live_ones() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let idle = acme.member("ada", &[]).await;
    let anonymous = app.anonymous();
    let again = || anonymous.login(&acme.slug, &idle.email, PASSWORD);
    let (over, out, live) = (again().await, again().await, again().await);
    expire_tokens(&app, &idle).await;
    update_session_times(&app, &over, "expires_at = now() - interval '1 second'").await;
    out.auth().logout(LogoutRequest::default()).await.expect("signed out");

    assert_eq!(revoke_all(&acme, &idle.user_id).await, 1);
    assert_eq!(revoke_all(&acme, &idle.user_id).await, 0);
    let mut states = Vec::new();
    for client in [&idle, &over, &out, &live] {
        states.push(session(&acme, client).await.state());
    }
    let (expired, revoked) = (SessionState::Expired, SessionState::Revoked);
    assert_eq!(states, [expired, expired, revoked, revoked]);
    assert_eq!(app.audited(&acme.tenant_id, "sessions_revoked").await, 1);
}

/// N06: the state of a session agrees with its tokens.
#[tokio::test]
async fn revoking_an_ended_session_changes_and_records_nothing() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let idle = acme.member("ada", &[]).await;
    let live = app.anonymous().login(&acme.slug, &idle.email, PASSWORD).await;
    expire_tokens(&app, &idle).await;
    for client in [&idle, &live, &live] {
        let request = RevokeSessionRequest { session_id: client.tokens.session_id.clone() };
        acme.sessions().revoke_session(request).await.expect("revoking an ended session succeeds");
    }
    assert_eq!(session(&acme, &idle).await.state(), SessionState::Expired);
    assert_eq!(session(&acme, &live).await.state(), SessionState::Revoked);
    assert_eq!(app.audited(&acme.tenant_id, "session_revoked").await, 1);
}
