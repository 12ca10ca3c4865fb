//! AuthService.Logout

use tenantry::proto::v1::{LogoutRequest, LogoutResponse, RefreshRequest, WhoAmIRequest};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, unknown_id};

async fn logout(client: &Client, session: &str) -> Result<Response<LogoutResponse>, Status> {
    let request = LogoutRequest { session_id: session.into() };
    client.auth().logout(request).await
}

async fn is_signed_in(client: &Client) -> bool {
    client.auth().who_am_i(WhoAmIRequest {}).await.is_ok()
}

#[tokio::test]
async fn logout_ends_only_the_session_of_its_token() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let other_session = app.anonymous().login("acme", &acme.email, PASSWORD).await;

    logout(&acme, "").await.expect("signed out");
    assert!(!is_signed_in(&acme).await);
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let refresh = app.anonymous().auth().refresh(request).await;
    assert_eq!(refresh.expect_err("refused").code(), Code::Unauthenticated);
    assert_refused(logout(&acme, "").await, Code::Unauthenticated, "TOKEN_INVALID");
    assert!(is_signed_in(&other_session).await);
    let event = &app.audit_events("signed_out").await[0];
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(acme.user_id));
    assert_eq!(event.target_id.map(|id| id.to_string()), Some(acme.tokens.session_id));
}

#[tokio::test]
async fn a_user_may_end_one_of_its_other_sessions_twice() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let other_session = app.anonymous().login(&acme.slug, &acme.email, PASSWORD).await;

    for _ in 0..2 {
        logout(&acme, &other_session.tokens.session_id).await.expect("signed out");
        assert!(!is_signed_in(&other_session).await);
        assert!(is_signed_in(&acme).await);
    }
}

#[tokio::test]
async fn the_session_of_another_user_gets_the_same_status_as_an_unknown_session() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &[]).await;

    let mut statuses = Vec::new();
    for session in [&ada.tokens.session_id, &other.tokens.session_id, &unknown_id()] {
        let status = assert_refused(logout(&acme, session).await, Code::NotFound, "NOT_FOUND");
        statuses.push((status.message().to_owned(), status.details().to_vec()));
    }
    statuses.dedup();
    assert_eq!(statuses.len(), 1);
    assert!(is_signed_in(&ada).await && is_signed_in(&other).await);
    assert_refused(logout(&acme, "no-id").await, Code::InvalidArgument, "INVALID_FIELDS");
}
