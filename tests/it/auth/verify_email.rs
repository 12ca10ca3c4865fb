//! `RequestEmailVerification` and `VerifyEmail`: a user proves its email.

use tenantry::proto::v1::{
    DisableUserRequest, SuspendTenantRequest, VerifyEmailRequest, VerifyEmailResponse,
};
use tonic::Code;

use crate::harness::{
    Client, MailServer, TestApp, assert_refused, mail_settings, unique_text, wait_until,
};

/// A server that sends mails, its mail server, a tenant, and a user of the tenant.
async fn server_with_user() -> (TestApp, MailServer, Client, Client) {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    // The address is unique, because mails to one address are counted across all tenants.
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    (app, mail_server, acme, ada)
}

async fn is_verified(client: &Client) -> bool {
    client.identity().await.user.expect("the user").email_verified
}

/// N46: a mailed token verifies the email once. The sessions of the user continue.
#[tokio::test]
async fn a_mailed_token_verifies_the_email_once() {
    let (app, mail_server, _acme, ada) = server_with_user().await;
    app.request_verification("acme", &ada.email).await.expect("accepted");
    let mail = mail_server.wait_for_mail(1).await;
    assert_eq!(mail.to, ada.email);
    assert!(mail.text.contains("Subject: Confirm your email for acme"), "{}", mail.text);
    assert!(!is_verified(&ada).await);

    let response = app.verify_email(&mail.link(), "").await.expect("verified").into_inner();
    let consistency_token = response.consistency_token.clone();
    assert!(!consistency_token.is_empty());
    // The sender of the token may not be the user, so the response contains nothing about the
    // account.
    assert_eq!(response, VerifyEmailResponse { consistency_token, ..Default::default() });
    assert!(is_verified(&ada).await);
    let replay = app.verify_email(&mail.link(), "").await;
    assert_refused(replay, Code::Unauthenticated, "TOKEN_INVALID");
    for kind in ["email_verification_requested", "email_verified", "email_verification_failed"] {
        assert_eq!(app.audit_event_count(&ada.tenant_id, kind).await, 1, "{kind}");
    }
}

/// N46: every request gets the same response. Only an active user with an unverified email gets a
/// mail.
#[tokio::test]
async fn all_requests_get_one_response() {
    let (app, mail_server, acme, ada) = server_with_user().await;
    let platform_admin = app.platform_admin().await;
    let suspended = app.create_tenant("suspended").await;
    let request = SuspendTenantRequest { tenant: "suspended".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    let user_id = acme.create_user("off@acme.test").await;
    acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    let verify = "update users set email_verified = true where user_id = $1::uuid";
    let mut owner_connection = app.owner_connection().await;
    let verified = sqlx::query(verify).bind(&acme.user_id).execute(&mut owner_connection).await;
    verified.expect("verified");

    for (slug, email) in [
        ("acme", "nobody@acme.test"),
        ("acme", "off@acme.test"),
        ("acme", acme.email.as_str()),
        ("suspended", suspended.email.as_str()),
        ("nowhere", ada.email.as_str()),
    ] {
        app.request_verification(slug, email).await.expect("every request gets the same response");
    }
    let requested = "email_verification_requested";
    // Three of the requests above are for the tenant `acme`.
    wait_until(10, || async { app.audit_event_count(&acme.tenant_id, requested).await == 3 }).await;
    app.request_verification("acme", &ada.email).await.expect("accepted");
    assert_eq!(mail_server.wait_for_mail(1).await.to, ada.email);

    let without_tenant = app.request_verification("", &ada.email).await;
    assert_refused(
        without_tenant.map(tonic::Response::new),
        Code::InvalidArgument,
        "TENANT_REQUIRED",
    );
}

/// N46: a retry with the same request id gets the first response. Of concurrent calls without an
/// id, only one uses the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_once_and_a_retry_is_safe() {
    let (app, mail_server, _acme, ada) = server_with_user().await;
    app.request_verification("acme", &ada.email).await.expect("accepted");
    let token = mail_server.wait_for_mail(1).await.link();
    let calls = (0..6).map(|_| app.verify_email(&token, ""));
    let results = futures::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);

    let mut owner_connection = app.owner_connection().await;
    let unverify_query = "update users set email_verified = false where user_id = $1::uuid";
    let result =
        sqlx::query(unverify_query).bind(&ada.user_id).execute(&mut owner_connection).await;
    result.expect("the email is not verified");
    app.request_verification("acme", &ada.email).await.expect("accepted");
    let token = mail_server.wait_for_mail(2).await.link();
    let request =
        VerifyEmailRequest { token, request_id: "once".into(), ..VerifyEmailRequest::default() };
    let auth_client = || app.anonymous().auth();
    let first_response =
        auth_client().verify_email(request.clone()).await.expect("verified").into_inner();
    let retry_response =
        auth_client().verify_email(request).await.expect("the first response").into_inner();
    assert_eq!(retry_response, first_response);
}

/// N46: the link in the mail may lead to a page of an application.
#[tokio::test]
async fn a_mail_links_to_the_configured_page() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(|values| {
        mail_settings(&mail_server.url)(values);
        values.set("EMAIL_VERIFICATION_URL", "https://app.test/verify?token={token}");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    app.request_verification("acme", &acme.email).await.expect("accepted");
    let link = mail_server.wait_for_mail(1).await.link();
    let token = link.strip_prefix("https://app.test/verify?token=").expect("the configured URL");
    app.verify_email(token, "").await.expect("verified");
}

/// N46: an account gets at most three verification mails in a short time. Requests for a
/// verification do not count for the limit of reset mails.
#[tokio::test]
async fn verification_mails_have_their_own_limit() {
    let (app, mail_server, _acme, ada) = server_with_user().await;
    for _ in 0..5 {
        app.request_verification("acme", &ada.email).await.expect("accepted");
    }
    let requested = "email_verification_requested";
    wait_until(10, || async { app.audit_event_count(&ada.tenant_id, requested).await == 5 }).await;
    app.request_reset("acme", &ada.email).await.expect("accepted");
    wait_until(20, || async { mail_server.mails().len() == 4 }).await;
    let is_verification = |text: &str| text.contains("Confirm your email");
    let mails = mail_server.mails();
    assert_eq!(mails.iter().filter(|mail| is_verification(&mail.text)).count(), 3);
}

#[tokio::test]
async fn without_a_mail_server_verification_is_off() {
    let app = TestApp::shared();
    let result = app.request_verification("acme", "a@x.test").await;
    assert_refused(result.map(tonic::Response::new), Code::FailedPrecondition, "MAIL_OFF");
    let acme = app.create_tenant(&unique_text()).await;
    let result = acme.request_email_change("a@x.test", crate::harness::PASSWORD).await;
    assert_refused(result, Code::FailedPrecondition, "MAIL_OFF");
    assert_refused(app.verify_email("x", "").await, Code::Unauthenticated, "TOKEN_INVALID");
}
