//! To change its own email, a user needs more than an access token. The old address gets a notice.

use tenantry::proto::v1::{UpdateUserRequest, UpdateUserResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, MailServer, PASSWORD, TestApp, assert_refused};

async fn change_own_email(
    client: &Client,
    email: &str,
    password: Option<&str>,
) -> Result<Response<UpdateUserResponse>, Status> {
    let request = UpdateUserRequest {
        user_id: client.user_id.clone(),
        email: Some(email.into()),
        current_password: password.map(Into::into),
        ..UpdateUserRequest::default()
    };
    client.users().update_user(request).await
}

/// Moves the start of all sessions `minutes` minutes into the past.
async fn age_sessions(app: &TestApp, minutes: i32) {
    sqlx::query("update sessions set created_at = created_at - make_interval(mins => $1)")
        .bind(minutes)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the sessions are older");
}

/// N11: also the permission `user:update` does not allow this.
#[tokio::test]
async fn a_stolen_access_token_cannot_change_the_email() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    age_sessions(&app, 5).await;

    for client in [&acme, &ada] {
        let refusal = change_own_email(client, "mine@acme.test", None).await;
        assert_refused(refusal, Code::PermissionDenied, "SIGN_IN_NOT_FRESH");
        let unchanged_reply =
            change_own_email(client, &client.email, None).await.expect("nothing changes");
        assert_eq!(unchanged_reply.into_inner().user.expect("the user").email, client.email);
        let refusal = change_own_email(client, "mine@acme.test", Some("wrong")).await;
        assert_refused(refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(app.audit_event_count(&acme.tenant_id, "email_change_failed").await, 2);
    for (client, email) in [(&acme, "boss@acme.test"), (&ada, "new@acme.test")] {
        change_own_email(client, email, Some(PASSWORD)).await.expect("with the password");
        app.anonymous().login("acme", email, PASSWORD).await;
    }
}

/// N11: a refreshed token alone is not enough to change an email.
#[tokio::test]
async fn a_recent_sign_in_allows_the_change_but_a_refresh_does_not() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    age_sessions(&app, 4).await;
    change_own_email(&ada, "fresh@acme.test", None).await.expect("within five minutes");
    age_sessions(&app, 1).await;
    let request = tenantry::proto::v1::RefreshRequest {
        refresh_token: ada.tokens.refresh_token.clone(),
        ..Default::default()
    };
    let pair = app.anonymous().auth().refresh(request).await.expect("refreshed").into_inner();
    let refusal =
        change_own_email(&ada.with_token(&pair.access_token), "late@acme.test", None).await;
    assert_refused(refusal, Code::PermissionDenied, "SIGN_IN_NOT_FRESH");
    let new_session = app.anonymous().login("acme", "fresh@acme.test", PASSWORD).await;
    change_own_email(&new_session, "again@acme.test", None).await.expect("the sign-in is recent");
    // Even after a recent sign-in, a password in the request must be correct. A user without a
    // password can only use a recent sign-in.
    let refusal = change_own_email(&new_session, "more@acme.test", Some("wrong")).await;
    assert_refused(refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

/// N11: wrong passwords in `Login` and in `UpdateUser` have one common limit.
#[tokio::test]
async fn wrong_passwords_count_as_failed_sign_ins() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    for _ in 0..10 {
        let refusal = change_own_email(&ada, "mine@acme.test", Some("wrong")).await;
        assert_refused(refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    let mut reply = change_own_email(&ada, "mine@acme.test", Some("wrong")).await;
    // One of the ten failures may be missing in the count, for example after a timeout of Redis.
    if reply.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated) {
        reply = change_own_email(&ada, "mine@acme.test", Some(PASSWORD)).await;
    }
    assert_refused(reply, Code::ResourceExhausted, "RATE_LIMITED");
}

/// N11: the owner of the old address learns of the change. The notice contains no text of the
/// tenant.
#[tokio::test]
async fn the_old_address_gets_a_notice_of_every_change() {
    let server = MailServer::start().await;
    let url = server.url.clone();
    let app = TestApp::with_settings(|values| values.set("MAIL_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["user:update"]).await;

    change_own_email(&ada, "new@acme.test", Some(PASSWORD)).await.expect("changed");
    let mail = server.wait_for_mail(1).await;
    assert_eq!(mail.to, ada.email);
    assert!(mail.text.contains("was changed") && mail.text.contains(&ada.user_id), "{}", mail.text);
    for unwanted in ["The acme company", "acme company", "new@acme.test"] {
        assert!(!mail.text.contains(unwanted), "{}", mail.text);
    }
    let request = UpdateUserRequest {
        user_id: ada.user_id.clone(),
        email: Some("newer@acme.test".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request.clone()).await.expect("the administrator changes the email");
    assert_eq!(server.wait_for_mail(2).await.to, "new@acme.test");
    acme.users().update_user(request).await.expect("nothing changes");
    let renamed = UpdateUserRequest {
        user_id: ada.user_id.clone(),
        display_name: Some("Ada".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(renamed).await.expect("renamed");
    change_own_email(&acme, "boss@acme.test", Some(PASSWORD)).await.expect("changed");
    assert_eq!(server.wait_for_mail(3).await.to, acme.email, "no other mail was sent");
}
