//! `ChangeEmail`: a user changes its own email with a proof of the account and of the new address.

use tenantry::proto::v1::{
    ChangeEmailRequest, ChangePasswordRequest, DisableUserRequest, EnableUserRequest, LogoutRequest,
};
use tonic::Code;

use crate::harness::{
    Client, MailServer, PASSWORD, TestApp, assert_refused, mail_settings, unique_text, wait_until,
};

/// A server that sends mails, its mail server, the administrator of a tenant, and a user of the
/// tenant.
async fn server_with_user() -> (TestApp, MailServer, Client, Client) {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    (app, mail_server, acme, ada)
}

fn new_address() -> String {
    format!("new-{}@acme.test", unique_text())
}

/// N46: the email changes when the token is used, and not before. The old address gets a notice.
#[tokio::test]
async fn the_email_changes_when_the_mailed_token_is_used() {
    let (app, mail_server, _acme, ada) = server_with_user().await;
    let address = new_address();
    let refusal = ada.request_email_change(&address, "wrong").await;
    assert_refused(refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
    assert_eq!(app.audit_event_count(&ada.tenant_id, "email_change_failed").await, 1);

    ada.request_email_change(&address, PASSWORD).await.expect("accepted");
    let mail = mail_server.wait_for_mail(1).await;
    assert_eq!(mail.to, address);
    assert!(mail.text.contains("Subject: Confirm your new email for acme"), "{}", mail.text);
    assert_eq!(ada.identity().await.user.expect("the user").email, ada.email);

    app.verify_email(&mail.link(), "").await.expect("changed");
    let user = ada.identity().await.user.expect("the user");
    assert_eq!((user.email.as_str(), user.email_verified), (address.as_str(), true));
    app.anonymous().login("acme", &address, PASSWORD).await;
    assert!(app.anonymous().try_login("acme", &ada.email, PASSWORD).await.is_err());
    let notice = mail_server.wait_for_mail_to(&ada.email).await;
    assert!(notice.text.contains("was changed"), "{}", notice.text);
    for kind in ["email_change_requested", "user_updated"] {
        assert_eq!(app.audit_event_count(&ada.tenant_id, kind).await, 1, "{kind}");
    }
}

/// N46: the response does not show that another user has the new email. That other user gets a mail
/// without a token.
#[tokio::test]
async fn a_taken_email_gets_the_same_response() {
    let (app, mail_server, acme, ada) = server_with_user().await;
    let owner = acme.create_member(&format!("owner-{}", unique_text()), &[]).await;
    ada.request_email_change(&owner.email.to_uppercase(), PASSWORD).await.expect("accepted");
    let mail = mail_server.wait_for_mail(1).await;
    assert_eq!(mail.to.to_lowercase(), owner.email);
    assert!(mail.text.contains("Subject: You already have an account at acme"), "{}", mail.text);
    // A token has at least 86 characters.
    assert!(mail.link().len() < 80, "the mail has a token: {}", mail.text);
    assert_eq!(ada.identity().await.user.expect("the user").email, ada.email);

    // The email is free when the mail is sent, and taken when the token is used.
    let address = new_address();
    ada.request_email_change(&address, PASSWORD).await.expect("accepted");
    let token = mail_server.wait_for_mail_to(&address).await.link();
    acme.create_user(&address).await;
    let refusal = app.verify_email(&token, "").await;
    assert_refused(refusal, Code::AlreadyExists, "EMAIL_TAKEN");
    assert_eq!(ada.identity().await.user.expect("the user").email, ada.email);
    let failed = "email_verification_failed";
    assert_eq!(app.audit_event_count(&ada.tenant_id, failed).await, 1);
}

/// N46: the token becomes invalid when the user's password or email changes, or when the user is
/// disabled. A session that has ended cannot request a token.
#[tokio::test]
async fn a_changed_password_or_email_or_a_disabling_makes_the_token_invalid() {
    let (app, mail_server, acme, _) = server_with_user().await;
    for change in ["password", "email", "state"] {
        let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
        let address = new_address();
        ada.request_email_change(&address, PASSWORD).await.expect("accepted");
        let token = mail_server.wait_for_mail_to(&address).await.link();
        match change {
            "password" => {
                let request = ChangePasswordRequest {
                    current_password: PASSWORD.into(),
                    new_password: "quite another battery".into(),
                };
                ada.auth().change_password(request).await.expect("changed");
            }
            "email" => {
                acme.change_email(&ada.user_id, &new_address()).await.expect("changed");
            }
            _ => {
                let user_id = ada.user_id.clone();
                acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
                let user_id = ada.user_id.clone();
                acme.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
            }
        }
        assert_refused(app.verify_email(&token, "").await, Code::Unauthenticated, "TOKEN_INVALID");
    }
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let refusal = ada.request_email_change(&new_address(), PASSWORD).await;
    assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
}

/// N46: if the server sends mail, a user without the permission can't skip the proof of the new
/// address, and does not learn by `UpdateUser` which emails are taken. An administrator may set any
/// email, which then counts as not verified.
#[tokio::test]
async fn update_user_changes_an_address_without_proof_only_for_administrators() {
    let (app, mail_server, acme, ada) = server_with_user().await;
    app.request_verification("acme", &ada.email).await.expect("accepted");
    app.verify_email(&mail_server.wait_for_mail(1).await.link(), "").await.expect("verified");
    for email in [new_address(), acme.email.clone()] {
        let refusal = ada.change_email(&ada.user_id, &email).await;
        assert_refused(refusal, Code::FailedPrecondition, "EMAIL_PROOF_REQUIRED");
    }
    // The same address in upper case needs no proof.
    let upper_case = ada.email.to_uppercase();
    let reply = ada.change_email(&ada.user_id, &upper_case).await.expect("the same address");
    assert!(reply.into_inner().user.expect("the user").email_verified);
    let reply = acme.change_email(&ada.user_id, &new_address()).await.expect("changed");
    assert!(!reply.into_inner().user.expect("the user").email_verified);
}

/// N46: a retry with the same request id sends no second mail.
#[tokio::test]
async fn a_retry_sends_no_second_mail() {
    let (app, mail_server, _acme, ada) = server_with_user().await;
    let request = ChangeEmailRequest {
        current_password: PASSWORD.into(),
        new_email: new_address(),
        request_id: "once".into(),
    };
    for _ in 0..2 {
        ada.auth().change_email(request.clone()).await.expect("accepted");
    }
    let requested = "email_change_requested";
    wait_until(10, || async { app.audit_event_count(&ada.tenant_id, requested).await == 1 }).await;
    let token = mail_server.wait_for_mail(1).await.link();
    app.verify_email(&token, "").await.expect("the token of the first mail is valid");
    let other_request = ChangeEmailRequest { new_email: new_address(), ..request };
    let refusal = ada.auth().change_email(other_request).await;
    assert_refused(refusal, Code::InvalidArgument, "REQUEST_ID_REUSED");
}
