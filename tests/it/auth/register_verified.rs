//! `Register` in an existing tenant, on a server that sends mail: the user joins with the mailed
//! token.

use serde_json::json;
use tenantry::proto::v1::{
    RegisterRequest, RegisterResponse, UpdateTenantRequest, VerifyEmailRequest,
};
use tonic::Code;

use super::register::{register, register_successfully};
use crate::harness::{
    Client, MailServer, PASSWORD, TestApp, assert_refused, mail_settings, struct_of, unique_text,
    wait_until,
};

async fn set_self_registration(tenant: &Client, is_open: bool) {
    let settings = struct_of(json!({ "self_registration": is_open }));
    let request = UpdateTenantRequest { settings, ..UpdateTenantRequest::default() };
    tenant.tenants().update_tenant(request).await.expect("the settings are stored");
}

/// A server that sends mails, its mail server, and a tenant that anybody may join.
async fn server_with_open_tenant() -> (TestApp, MailServer, Client) {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    set_self_registration(&acme, true).await;
    (app, mail_server, acme)
}

fn new_address() -> String {
    format!("new-{}@acme.test", unique_text())
}

fn join_request(email: &str) -> RegisterRequest {
    RegisterRequest {
        email: email.into(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        display_name: "Click here: https://prize.test".into(),
        ..RegisterRequest::default()
    }
}

/// N46: there is no user before the mailed token is used. Then the email is verified.
#[tokio::test]
async fn the_mailed_token_completes_the_registration() {
    let (app, mail_server, acme) = server_with_open_tenant().await;
    let email = new_address();
    let reply = register_successfully(&app.anonymous(), join_request(&email)).await;
    assert!(reply.verification_sent && reply.user.is_none() && reply.tenant.is_none());
    let mail = mail_server.wait_for_mail(1).await;
    assert_eq!(mail.to, email);
    assert!(mail.text.contains("Subject: Confirm your registration at acme"), "{}", mail.text);
    // N17: a stranger can choose the display name and the address, so the mail must not contain
    // the name.
    assert!(!mail.text.contains("prize"), "{}", mail.text);
    assert!(app.anonymous().try_login("acme", &email, PASSWORD).await.is_err());

    let response = app.verify_email(&mail.link(), PASSWORD).await.expect("verified").into_inner();
    assert_eq!(response.tenant.expect("the tenant").id, acme.tenant_id);
    let user = response.user.expect("the user");
    assert_eq!((user.email.as_str(), user.email_verified), (email.as_str(), true));
    let session = app.anonymous().login("acme", &email, PASSWORD).await;
    assert_eq!(session.user_id, user.id);
    assert_eq!(session.identity().await.roles, ["member"]);
    for kind in ["registration_requested", "user_registered"] {
        // The registration of the tenant's administrator also has a `user_registered` event.
        let count = if kind == "user_registered" { 2 } else { 1 };
        assert_eq!(app.audit_event_count(&acme.tenant_id, kind).await, count, "{kind}");
    }
}

/// N46: the response is the same for a taken email, and its owner gets a mail without a token.
#[tokio::test]
async fn a_taken_email_gets_the_same_response() {
    let (app, mail_server, acme) = server_with_open_tenant().await;
    let owner = acme.create_member(&format!("owner-{}", unique_text()), &[]).await;
    let without_consistency_token =
        |reply: RegisterResponse| RegisterResponse { consistency_token: String::new(), ..reply };
    let free_email_reply =
        register_successfully(&app.anonymous(), join_request(&new_address())).await;
    let taken_email_reply =
        register_successfully(&app.anonymous(), join_request(&owner.email.to_uppercase())).await;
    assert_eq!(
        without_consistency_token(free_email_reply),
        without_consistency_token(taken_email_reply)
    );
    wait_until(20, || async { mail_server.mails().len() == 2 }).await;
    let mails = mail_server.mails();
    let mail = mails.iter().find(|mail| mail.to.to_lowercase() == owner.email).expect("a mail");
    assert!(mail.text.contains("Subject: You already have an account at acme"), "{}", mail.text);
    // A token has at least 86 characters.
    assert!(mail.link().len() < 80, "the mail has a token: {}", mail.text);
    app.anonymous().login("acme", &owner.email, PASSWORD).await;
    // The audit trail of both registrations is the same, and says nothing about accounts.
    assert_eq!(app.audit_event_count(&acme.tenant_id, "registration_requested").await, 2);
    assert_eq!(app.audit_event_count(&acme.tenant_id, "registration_refused").await, 0);
}

/// N46: a stranger registers the email of another person, and this person follows the mailed link.
/// The person does not know the stranger's password, so the link creates no account.
#[tokio::test]
async fn a_registration_is_completed_only_with_its_password() {
    let (app, mail_server, acme) = server_with_open_tenant().await;
    let email = new_address();
    register_successfully(&app.anonymous(), join_request(&email)).await;
    let token = mail_server.wait_for_mail(1).await.link();
    let refusal = app.verify_email(&token, "").await;
    assert_refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
    let refusal = app.verify_email(&token, "the victim's password").await;
    assert_refused(refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let failed = "email_verification_failed";
    assert_eq!(app.audit_event_count(&acme.tenant_id, failed).await, 1);
    assert!(app.anonymous().try_login("acme", &email, PASSWORD).await.is_err());
    // The person registers too, and each of the two registrations has its own link.
    let owner_request =
        RegisterRequest { password: "the victim's password".into(), ..join_request(&email) };
    register_successfully(&app.anonymous(), owner_request).await;
    let owner_token = mail_server.wait_for_mail(2).await.link();
    app.verify_email(&owner_token, "the victim's password").await.expect("registered");
    // The first registration to be completed gets the email.
    let refusal = app.verify_email(&token, PASSWORD).await;
    assert_refused(refusal, Code::AlreadyExists, "EMAIL_TAKEN");
}

/// N46: the tenant may be closed between the registration and the use of the token.
#[tokio::test]
async fn a_tenant_that_has_closed_registration_gets_no_user() {
    let (app, mail_server, acme) = server_with_open_tenant().await;
    let email = new_address();
    register_successfully(&app.anonymous(), join_request(&email)).await;
    let token = mail_server.wait_for_mail(1).await.link();
    set_self_registration(&acme, false).await;
    let refusal = app.verify_email(&token, PASSWORD).await;
    assert_refused(refusal, Code::PermissionDenied, "REGISTRATION_CLOSED");
    let reply = register(&app.anonymous(), join_request(&new_address())).await;
    assert_refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
    set_self_registration(&acme, true).await;
    app.verify_email(&token, PASSWORD).await.expect("the token is still valid");
}

/// N46: retries of both calls get the first response, and send no second mail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_get_the_first_response() {
    let (app, mail_server, acme) = server_with_open_tenant().await;
    let anonymous = app.anonymous();
    let request = RegisterRequest { request_id: "once".into(), ..join_request(&new_address()) };
    let calls = (0..5).map(|_| register_successfully(&anonymous, request.clone()));
    let replies = futures::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(app.audit_event_count(&acme.tenant_id, "registration_requested").await, 1);
    let token = mail_server.wait_for_mail(1).await.link();
    let request =
        VerifyEmailRequest { token, password: PASSWORD.into(), request_id: "once".into() };
    let calls = (0..5).map(|_| {
        let (anonymous, request) = (anonymous.clone(), request.clone());
        async move { anonymous.auth().verify_email(request).await.expect("registered").into_inner() }
    });
    let replies = futures::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert!(replies[0].user.is_some());
}

/// N46: a registration that creates a tenant needs no mail, because the tenant has no other user.
#[tokio::test]
async fn a_new_tenant_needs_no_mail() {
    let (app, mail_server, _acme) = server_with_open_tenant().await;
    let request = RegisterRequest {
        organization_name: "Other".into(),
        organization_slug: "other".into(),
        ..join_request("ada@other.test")
    };
    let reply = register_successfully(&app.anonymous(), request).await;
    assert!(!reply.verification_sent && reply.user.is_some());
    app.anonymous().login("other", "ada@other.test", PASSWORD).await;
    assert!(mail_server.mails().is_empty());
}

/// K06: the email and the name of a registration that is not completed are sealed, and so is its
/// queued mail.
#[tokio::test]
async fn an_incomplete_registration_is_sealed() {
    // Nothing listens at this address, so the mail waits.
    let app = TestApp::with_settings(mail_settings("smtp://127.0.0.1:9")).await;
    let acme = app.create_tenant("acme").await;
    set_self_registration(&acme, true).await;
    let email = new_address();
    register_successfully(&app.anonymous(), join_request(&email)).await;
    acme.request_email_change(&email, PASSWORD).await.expect("accepted");
    let count =
        "select count(*), count(*) filter (where position(convert_to($1, 'UTF8') in content) > 0)
        from (select content from registrations union all select content from mail_outbox
              union all select content from mail_links) stored";
    for canary in [email.as_str(), "prize"] {
        let counts: (i64, i64) = sqlx::query_as(count)
            .bind(canary)
            .fetch_one(&mut app.owner_connection().await)
            .await
            .expect("counts");
        // Four rows: the registration, the link of the email change, and the mail of each.
        assert_eq!(counts, (4, 0), "{canary}");
    }
}

/// N46, N31: registrations that are not completed are deleted with their tenant.
#[tokio::test]
async fn registrations_of_a_deleted_tenant_are_deleted() {
    let (app, mail_server, acme) = server_with_open_tenant().await;
    register_successfully(&app.anonymous(), join_request(&new_address())).await;
    let token = mail_server.wait_for_mail(1).await.link();
    let request =
        tenantry::proto::v1::DeleteTenantRequest { tenant: "acme".into(), ..Default::default() };
    app.platform_admin().await.tenants().delete_tenant(request).await.expect("deleted");
    let refusal = app.verify_email(&token, PASSWORD).await;
    assert_refused(refusal, Code::Unauthenticated, "TOKEN_INVALID");
    let query = "select count(*) from registrations where tenant_id = $1";
    wait_until(60, || async { app.count(query, &acme.tenant_id).await == 0 }).await;
}
