//! SessionService: the sessions that a caller may see and end.

use tenantry::proto::v1::{
    GetSessionRequest, ListSessionsRequest, LogoutRequest, RevokeSessionRequest, SessionState,
    WhoAmIRequest,
};
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Client, PASSWORD, TestApp, refused};

async fn listed(client: &Client, user_id: &str) -> Vec<String> {
    let request = ListSessionsRequest { user_id: user_id.into(), ..Default::default() };
    let reply = client.sessions().list_sessions(request).await.expect("sessions");
    reply.into_inner().sessions.into_iter().map(|session| session.id).collect()
}

fn revoke(session_id: &str) -> RevokeSessionRequest {
    RevokeSessionRequest { session_id: session_id.into() }
}

/// C21: a caller sees and ends only sessions that it may manage.
#[tokio::test]
async fn a_user_may_end_its_own_sessions() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let current_session = acme.member("ada", &[]).await;
    let other_session = app.anonymous().login(&acme.slug, &current_session.email, PASSWORD).await;
    let both = [current_session.tokens.session_id.clone(), other_session.tokens.session_id.clone()];
    assert_eq!(listed(&current_session, "").await, both);

    let ended = &other_session.tokens.session_id;
    current_session.sessions().revoke_session(revoke(ended)).await.expect("ended");
    assert_eq!(listed(&current_session, "").await, both[..1]);
    let who = other_session.auth().who_am_i(WhoAmIRequest {}).await;
    refused(who, Code::Unauthenticated, "TOKEN_INVALID");
    let request = GetSessionRequest { session_id: ended.clone() };
    let session = current_session
        .sessions()
        .get_session(request)
        .await
        .expect("a reply")
        .into_inner()
        .session;
    assert_eq!(session.expect("the session").state(), SessionState::Revoked);
}

/// C21: a caller sees and ends only sessions that it may manage.
#[tokio::test]
async fn another_users_session_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let (ada, eve) = (a.member("ada", &[]).await, a.member("eve", &[]).await);
    let target = &ada.tokens.session_id;
    let nowhere = Uuid::now_v7().to_string();
    for other in [&eve, &b] {
        let answers = |session: String| async move {
            let get = GetSessionRequest { session_id: session.clone() };
            let logout = LogoutRequest { session_id: session.clone() };
            let statuses = [
                other.sessions().revoke_session(revoke(&session)).await.expect_err("revoke"),
                other.sessions().get_session(get).await.expect_err("get"),
                other.auth().logout(logout).await.expect_err("logout"),
            ];
            statuses.map(|s| (s.code(), s.message().to_owned(), s.details().to_vec()))
        };
        let seen = answers(target.clone()).await;
        assert!(seen.iter().all(|status| status.0 == Code::NotFound), "{seen:?}");
        assert_eq!(seen, answers(nowhere.clone()).await);
    }
    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("alive");
}
