//! Mails to international addresses.

use crate::harness::{MailServer, TestApp, mail_settings, wait_until};

/// N43: a mail server needs no extension for an international domain.
#[tokio::test]
async fn a_mail_to_an_international_domain_has_its_ascii_form() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    acme.create_user("ada@bücher.example").await;
    app.request_reset("acme", "ADA@xn--bcher-kva.example").await.expect("accepted");
    assert_eq!(mail_server.wait_for_mail(1).await.to, "ada@xn--bcher-kva.example");
}

/// N43: an international local part requires the extension SMTPUTF8. Without this extension the
/// mail fails immediately, and the mail server does not count as unreachable.
#[tokio::test]
async fn a_mail_to_an_international_local_part_needs_a_suitable_mail_server() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    acme.create_user("用户@例え.テスト").await;
    app.request_reset("acme", "用户@例え.テスト").await.expect("accepted");
    let failed_metric = "tenantry_mails_total{outcome=\"failed\"}";
    wait_until(20, || async { app.metric(failed_metric).await == Some(1.0) }).await;

    mail_server.accept_international_addresses();
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    acme.create_user("用户@例え.テスト").await;
    app.request_reset("acme", "用户@例え.テスト").await.expect("accepted");
    let mail = mail_server.wait_for_mail(1).await;
    assert_eq!(mail.to, "用户@xn--r8jz45g.xn--zckzah");
}
