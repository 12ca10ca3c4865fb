//! SessionService: the sessions that a caller may see and end.

use tenantry::proto::v1::{
    GetSessionRequest, ListSessionsRequest, LogoutRequest, RevokeSessionRequest, SessionState,
    WhoAmIRequest,
};
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused};

async fn list_session_ids(client: &Client, user_id: &str) -> Vec<String> {
    let request = ListSessionsRequest { user_id: user_id.into(), ..Default::default() };
    let reply = client.sessions().list_sessions(request).await.expect("sessions");
    reply.into_inner().sessions.into_iter().map(|session| session.id).collect()
}

fn revoke_request(session_id: &str) -> RevokeSessionRequest {
    RevokeSessionRequest { session_id: session_id.into() }
}

/// C21: a user without any permission may list, read and end its own sessions.
#[tokio::test]
async fn a_user_may_end_its_own_sessions() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let current_session = acme.create_member("ada", &[]).await;
    let other_session = app.anonymous().login(&acme.slug, &current_session.email, PASSWORD).await;
    let ids = [current_session.tokens.session_id.clone(), other_session.tokens.session_id.clone()];
    assert_eq!(list_session_ids(&current_session, "").await, ids);

    let other_id = &other_session.tokens.session_id;
    current_session.sessions().revoke_session(revoke_request(other_id)).await.expect("revoked");
    assert_eq!(list_session_ids(&current_session, "").await, ids[..1]);
    let result = other_session.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let request = GetSessionRequest { session_id: other_id.clone() };
    let session = current_session
        .sessions()
        .get_session(request)
        .await
        .expect("a reply")
        .into_inner()
        .session;
    assert_eq!(session.expect("the session").state(), SessionState::Revoked);
}

/// C21: the other user may be in the same tenant or in another tenant.
#[tokio::test]
async fn another_users_session_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let (ada, eve) = (a.create_member("ada", &[]).await, a.create_member("eve", &[]).await);
    let known_session = &ada.tokens.session_id;
    let unknown_session = Uuid::now_v7().to_string();
    for other in [&eve, &b] {
        let statuses_of_calls = |session: String| async move {
            let get = GetSessionRequest { session_id: session.clone() };
            let logout = LogoutRequest { session_id: session.clone() };
            let refusals = [
                other
                    .sessions()
                    .revoke_session(revoke_request(&session))
                    .await
                    .expect_err("the revocation is refused"),
                other.sessions().get_session(get).await.expect_err("the read is refused"),
                other.auth().logout(logout).await.expect_err("the logout is refused"),
            ];
            refusals.map(|s| (s.code(), s.message().to_owned(), s.details().to_vec()))
        };
        let statuses = statuses_of_calls(known_session.clone()).await;
        assert!(statuses.iter().all(|status| status.0 == Code::NotFound), "{statuses:?}");
        assert_eq!(statuses, statuses_of_calls(unknown_session.clone()).await);
    }
    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("the session is live");
}
