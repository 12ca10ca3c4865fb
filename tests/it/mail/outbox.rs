//! Mails wait in Postgres until a mail server has accepted them.

use sqlx::PgConnection;
use tenantry::proto::v1::{DeleteTenantRequest, GetUserRequest, ResetPasswordRequest};
use tonic::Code;

use crate::harness::{
    Cluster, MailServer, Proxy, TestApp, mail_settings, refused, unknown_id, until,
};

/// An address where nothing listens.
const UNREACHABLE: &str = "smtp://127.0.0.1:9";

async fn count(owner: &mut PgConnection, condition: &str) -> i64 {
    let query = format!("select count(*) from mail_outbox where {condition}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(owner).await.expect("a count")
}

/// Makes all mails due now, whatever their leases.
async fn make_due(owner: &mut PgConnection) {
    let update = "update mail_outbox set due_at = now()";
    sqlx::query(update).execute(owner).await.expect("due");
}

/// Waits until the service has tried to send a mail of this kind.
async fn until_tried(app: &TestApp, kind: &str) {
    let condition = format!("kind = '{kind}' and attempts > 0");
    until(20, || async { count(&mut app.owner().await, &condition).await == 1 }).await;
}

fn message_id(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("Message-ID:")).expect("a Message-ID")
}

#[tokio::test]
async fn a_mail_that_waits_when_its_server_ends_is_sent_by_the_next_server() {
    let app = TestApp::with(mail_settings(UNREACHABLE)).await;
    let acme = app.tenant("acme").await;
    let ada = acme.member(&format!("ada-{}", unknown_id()), &[]).await;
    app.request_reset("acme", &ada.email).await.expect("queued");
    until_tried(&app, "password_reset").await;
    let database = app.database.clone();
    drop(app);
    make_due(&mut Cluster::get().connect_owner(&database).await).await;

    let server = MailServer::start().await;
    let next_server = TestApp::on(&database, mail_settings(&server.url)).await;
    let token = server.nth(1).await.link();
    let request = ResetPasswordRequest { token, new_password: "quite another battery".into() };
    next_server.anonymous().auth().reset_password(request).await.expect("the link is valid");
    until(20, || async { count(&mut next_server.owner().await, "true").await == 0 }).await;
}

/// The mail server accepts the mail, and the process ends before it records the success.
#[tokio::test]
async fn a_mail_that_is_sent_twice_is_the_same_mail() {
    let server = MailServer::start().await;
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let ada = acme.member(&format!("ada-{}", unknown_id()), &[]).await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| {
        mail_settings(&server.url)(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    server.withhold_next_reply();
    app.request_reset("acme", &ada.email).await.expect("queued");
    let first = server.nth(1).await;
    proxy.hold();
    drop(app);
    // Make the mail due now, so that the other server need not wait for the end of the lease.
    make_due(&mut direct.owner().await).await;
    let _next = TestApp::on(&direct.database, mail_settings(&server.url)).await;
    let second = server.nth(2).await;
    assert_eq!(message_id(&first.text), message_id(&second.text));
    assert_eq!(first.link(), second.link());
    until(20, || async { count(&mut direct.owner().await, "true").await == 0 }).await;
}

#[tokio::test]
async fn two_replicas_send_each_mail_once() {
    let server = MailServer::start().await;
    let app = TestApp::with(mail_settings(&server.url)).await;
    let _other = TestApp::on(&app.database, mail_settings(&server.url)).await;
    let acme = app.tenant("acme").await;
    let mut old_addresses = Vec::new();
    for n in 0..20 {
        let email = format!("ada{n}-{}@acme.test", unknown_id());
        let user = acme.create_user_without_password(&email).await;
        let new_address = format!("new{n}-{}@acme.test", unknown_id());
        acme.change_email(&user, &new_address).await.expect("changed");
        old_addresses.push(email);
    }
    until(20, || async { count(&mut app.owner().await, "true").await == 0 }).await;
    let mut recipients: Vec<_> = server.mails().into_iter().map(|mail| mail.to).collect();
    recipients.sort_unstable();
    old_addresses.sort_unstable();
    assert_eq!(recipients, old_addresses);
}

#[tokio::test]
async fn an_email_does_not_change_without_its_notice() {
    let app = TestApp::with(mail_settings(UNREACHABLE)).await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let fill_outbox =
        "insert into mail_outbox (tenant_id, mail_id, kind, content, due_at, expires_at)
                select $1::uuid, gen_random_uuid(), 'email_changed', '', now() + interval '1 day',
                       now() + interval '1 day'
                from generate_series(1, 1000)";
    let mut owner = app.owner().await;
    sqlx::query(fill_outbox).bind(&acme.tenant_id).execute(&mut owner).await.expect("rows");
    let result = acme.change_email(&acme.user_id, "new@acme.test").await;
    refused(result, Code::ResourceExhausted, "OVERLOADED");
    let request = GetUserRequest { user_id: acme.user_id.clone() };
    let user = acme.users().get_user(request).await.expect("found").into_inner().user;
    assert_eq!(user.expect("the user").email, acme.email);
    other.change_email(&other.user_id, "new@other.test").await.expect("another tenant's");
}

#[tokio::test]
async fn a_mail_that_was_not_sent_in_time_is_dropped() {
    let app = TestApp::with(mail_settings(UNREACHABLE)).await;
    let acme = app.tenant("acme").await;
    acme.change_email(&acme.user_id, "new@acme.test").await.expect("changed");
    until_tried(&app, "email_changed").await;
    let expire_mail = "update mail_outbox set expires_at = now(), due_at = now()";
    sqlx::query(expire_mail).execute(&mut app.owner().await).await.expect("expired");
    let expired = "tenantry_mails_total{outcome=\"expired\"}";
    until(20, || async { app.metric(expired).await == Some(1.0) }).await;
    until(20, || async { count(&mut app.owner().await, "true").await == 0 }).await;
}

#[tokio::test]
async fn the_mails_of_a_deleted_tenant_are_dropped() {
    let app = TestApp::with(mail_settings(UNREACHABLE)).await;
    let root = app.platform_admin().await;
    let acme = app.tenant("acme").await;
    acme.change_email(&acme.user_id, "new@acme.test").await.expect("changed");
    until_tried(&app, "email_changed").await;
    let delete = DeleteTenantRequest { tenant: "acme".into(), ..DeleteTenantRequest::default() };
    root.tenants().delete_tenant(delete).await.expect("deleted");
    until(20, || async { count(&mut app.owner().await, "true").await == 0 }).await;
}

/// Another transaction holds the user's row for longer than Postgres lets a statement wait.
#[tokio::test]
async fn a_request_that_meets_a_lock_timeout_is_retried() {
    let server = MailServer::start().await;
    let app = TestApp::with(mail_settings(&server.url)).await;
    let acme = app.tenant("acme").await;
    let ada = acme.member(&format!("ada-{}", unknown_id()), &[]).await;
    let mut holder = app.owner().await;
    let mut transaction = sqlx::Connection::begin(&mut holder).await.expect("begun");
    let lock = "select from users where user_id = $1::uuid for update";
    sqlx::query(lock).bind(&ada.user_id).execute(&mut *transaction).await.expect("locked");
    app.request_reset("acme", &ada.email).await.expect("queued");
    let retried = "kind = 'reset_request' and attempts > 1";
    until(40, || async { count(&mut app.owner().await, retried).await == 1 }).await;
    transaction.rollback().await.expect("released");
    assert_eq!(server.nth(1).await.to, ada.email);
}
