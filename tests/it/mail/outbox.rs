//! Mails wait in Postgres until a mail server has accepted them.

use sqlx::PgConnection;
use tenantry::proto::v1::{DeleteTenantRequest, GetUserRequest, ResetPasswordRequest};
use tonic::Code;

use crate::harness::{
    Cluster, MailServer, Proxy, TestApp, assert_refused, mail_settings, unique_text, wait_until,
};

/// An address where nothing listens.
const UNREACHABLE: &str = "smtp://127.0.0.1:9";

/// Number of mails that meet an SQL condition.
async fn mail_count(owner_connection: &mut PgConnection, condition: &str) -> i64 {
    let query = format!("select count(*) from mail_outbox where {condition}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(owner_connection)
        .await
        .expect("a count")
}

/// Makes all mails due now, also mails that a server has claimed.
async fn make_due(owner_connection: &mut PgConnection) {
    let update = "update mail_outbox set due_at = now()";
    sqlx::query(update).execute(owner_connection).await.expect("the mails are due");
}

/// Waits until the service has tried to send a mail of this kind.
async fn wait_until_tried(app: &TestApp, kind: &str) {
    let condition = format!("kind = '{kind}' and attempts > 0");
    wait_until(20, || async {
        mail_count(&mut app.owner_connection().await, &condition).await == 1
    })
    .await;
}

fn message_id(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("Message-ID:")).expect("a Message-ID")
}

#[tokio::test]
async fn a_waiting_mail_is_sent_after_a_restart() {
    let app = TestApp::with_settings(mail_settings(UNREACHABLE)).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    app.request_reset("acme", &ada.email).await.expect("queued");
    wait_until_tried(&app, "password_reset").await;
    let database = app.database.clone();
    drop(app);
    make_due(&mut Cluster::get().connect_owner(&database).await).await;

    let mail_server = MailServer::start().await;
    let restarted_app = TestApp::on_database(&database, mail_settings(&mail_server.url)).await;
    let token = mail_server.wait_for_mail(1).await.link();
    let request = ResetPasswordRequest { token, new_password: "quite another battery".into() };
    restarted_app.anonymous().auth().reset_password(request).await.expect("the link is valid");
    wait_until(20, || async {
        mail_count(&mut restarted_app.owner_connection().await, "true").await == 0
    })
    .await;
}

/// The mail server accepts the mail, and the process ends before the success is stored.
#[tokio::test]
async fn a_mail_that_is_sent_twice_is_the_same_mail() {
    let mail_server = MailServer::start().await;
    let direct_app = TestApp::spawn().await;
    let acme = direct_app.create_tenant("acme").await;
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app = TestApp::on_database(&direct_app.database, |values| {
        mail_settings(&mail_server.url)(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    mail_server.withhold_next_reply();
    app.request_reset("acme", &ada.email).await.expect("queued");
    let first_mail = mail_server.wait_for_mail(1).await;
    proxy.hold();
    drop(app);
    // Make the mail due now, so that the next server need not wait until the claim expires.
    make_due(&mut direct_app.owner_connection().await).await;
    let _restarted_app =
        TestApp::on_database(&direct_app.database, mail_settings(&mail_server.url)).await;
    let second_mail = mail_server.wait_for_mail(2).await;
    assert_eq!(message_id(&first_mail.text), message_id(&second_mail.text));
    assert_eq!(first_mail.link(), second_mail.link());
    wait_until(20, || async {
        mail_count(&mut direct_app.owner_connection().await, "true").await == 0
    })
    .await;
}

#[tokio::test]
async fn two_replicas_send_each_mail_once() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let _second_replica =
        TestApp::on_database(&app.database, mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    let mut old_addresses = Vec::new();
    for n in 0..20 {
        let email = format!("ada{n}-{}@acme.test", unique_text());
        let user = acme.create_user_without_password(&email).await;
        let new_address = format!("new{n}-{}@acme.test", unique_text());
        acme.change_email(&user, &new_address).await.expect("changed");
        old_addresses.push(email);
    }
    wait_until(20, || async { mail_count(&mut app.owner_connection().await, "true").await == 0 })
        .await;
    let mut recipients: Vec<_> = mail_server.mails().into_iter().map(|mail| mail.to).collect();
    recipients.sort_unstable();
    old_addresses.sort_unstable();
    assert_eq!(recipients, old_addresses);
}

#[tokio::test]
async fn an_email_is_not_changed_when_its_notice_cannot_be_queued() {
    let app = TestApp::with_settings(mail_settings(UNREACHABLE)).await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let fill_outbox =
        "insert into mail_outbox (tenant_id, mail_id, kind, content, due_at, expires_at)
                select $1::uuid, gen_random_uuid(), 'email_changed', '', now() + interval '1 day',
                       now() + interval '1 day'
                from generate_series(1, 1000)";
    let mut owner_connection = app.owner_connection().await;
    sqlx::query(fill_outbox)
        .bind(&acme.tenant_id)
        .execute(&mut owner_connection)
        .await
        .expect("rows");
    let result = acme.change_email(&acme.user_id, "new@acme.test").await;
    assert_refused(result, Code::ResourceExhausted, "OVERLOADED");
    let request = GetUserRequest { user_id: acme.user_id.clone() };
    let user = acme.users().get_user(request).await.expect("found").into_inner().user;
    assert_eq!(user.expect("the user").email, acme.email);
    other
        .change_email(&other.user_id, "new@other.test")
        .await
        .expect("the outbox of the other tenant is not full");
}

#[tokio::test]
async fn a_mail_that_was_not_sent_in_time_is_dropped() {
    let app = TestApp::with_settings(mail_settings(UNREACHABLE)).await;
    let acme = app.create_tenant("acme").await;
    acme.change_email(&acme.user_id, "new@acme.test").await.expect("changed");
    wait_until_tried(&app, "email_changed").await;
    let expire_mail = "update mail_outbox set expires_at = now(), due_at = now()";
    sqlx::query(expire_mail).execute(&mut app.owner_connection().await).await.expect("expired");
    let expired_metric = "tenantry_mails_total{outcome=\"expired\"}";
    wait_until(20, || async { app.metric(expired_metric).await == Some(1.0) }).await;
    wait_until(20, || async { mail_count(&mut app.owner_connection().await, "true").await == 0 })
        .await;
}

#[tokio::test]
async fn the_mails_of_a_deleted_tenant_are_dropped() {
    let app = TestApp::with_settings(mail_settings(UNREACHABLE)).await;
    let platform_admin = app.platform_admin().await;
    let acme = app.create_tenant("acme").await;
    acme.change_email(&acme.user_id, "new@acme.test").await.expect("changed");
    wait_until_tried(&app, "email_changed").await;
    let delete = DeleteTenantRequest { tenant: "acme".into(), ..DeleteTenantRequest::default() };
    platform_admin.tenants().delete_tenant(delete).await.expect("deleted");
    wait_until(20, || async { mail_count(&mut app.owner_connection().await, "true").await == 0 })
        .await;
}

/// Another transaction locks the user's row for longer than the lock timeout of the service.
#[tokio::test]
async fn a_reset_request_that_meets_a_lock_timeout_is_retried() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    let mut lock_holder = app.owner_connection().await;
    let mut transaction = sqlx::Connection::begin(&mut lock_holder).await.expect("begun");
    let lock = "select from users where user_id = $1::uuid for update";
    sqlx::query(lock).bind(&ada.user_id).execute(&mut *transaction).await.expect("locked");
    app.request_reset("acme", &ada.email).await.expect("queued");
    let retried_condition = "kind = 'reset_request' and attempts > 1";
    wait_until(40, || async {
        mail_count(&mut app.owner_connection().await, retried_condition).await == 1
    })
    .await;
    transaction.rollback().await.expect("released");
    assert_eq!(mail_server.wait_for_mail(1).await.to, ada.email);
}
