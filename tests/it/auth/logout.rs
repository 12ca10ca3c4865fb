//! AuthService.Logout

use tenantry::proto::v1::{LogoutRequest, LogoutResponse, RefreshRequest, WhoAmIRequest};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, refused, unknown_id};

async fn logout(client: &Client, session: &str) -> Result<Response<LogoutResponse>, Status> {
    let request = LogoutRequest { session_id: session.into() };
    client.auth().logout(request).await
}

async fn works(client: &Client) -> bool {
    client.auth().who_am_i(WhoAmIRequest {}).await.is_ok()
}

#[tokio::test]
async fn logout_ends_only_the_session_of_its_token() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let elsewhere = app.anonymous().login("acme", &acme.email, PASSWORD).await;

    logout(&acme, "").await.expect("signed out");
    assert!(!works(&acme).await);
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let refresh = app.anonymous().auth().refresh(request).await;
    assert_eq!(refresh.expect_err("refused").code(), Code::Unauthenticated);
    refused(logout(&acme, "").await, Code::Unauthenticated, "TOKEN_INVALID");
    assert!(works(&elsewhere).await);
    let event = &app.recorded("signed_out").await[0];
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(acme.user_id));
    assert_eq!(event.target_id.map(|id| id.to_string()), Some(acme.tokens.session_id));
}

#[tokio::test]
async fn a_user_may_end_another_of_its_own_sessions_repeatedly() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let elsewhere = app.anonymous().login(&acme.slug, &acme.email, PASSWORD).await;

    for _ in 0..2 {
        logout(&acme, &elsewhere.tokens.session_id).await.expect("signed out");
        assert!(!works(&elsewhere).await);
        assert!(works(&acme).await);
    }
}

#[tokio::test]
async fn another_users_session_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let ada = acme.member("ada", &[]).await;

    let mut seen = Vec::new();
    for session in [&ada.tokens.session_id, &other.tokens.session_id, &unknown_id()] {
        let status = refused(logout(&acme, session).await, Code::NotFound, "NOT_FOUND");
        seen.push((status.message().to_owned(), status.details().to_vec()));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    assert!(works(&ada).await && works(&other).await);
    refused(logout(&acme, "no-id").await, Code::InvalidArgument, "INVALID_FIELDS");
}
