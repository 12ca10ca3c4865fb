//! Mails wait in Postgres until a mail server has accepted them.

use sqlx::PgConnection;
use tenantry::{
    config::Values,
    proto::v1::{
        DeleteTenantRequest, GetUserRequest, RequestPasswordResetRequest, ResetPasswordRequest,
        UpdateUserRequest, UpdateUserResponse,
    },
};
use tonic::{Code, Response, Status};

use crate::harness::{
    Client, Cluster, MailServer, Proxy, TestApp, Then, mask, refused, unknown_id, until,
};

/// An address where nothing listens.
const UNREACHABLE: &str = "smtp://127.0.0.1:9";

fn mail_settings(url: &str) -> impl Fn(&mut Values) {
    let url = url.to_owned();
    move |values| {
        values.set("MAIL_URL", url.clone());
        values.set("RATE_LIMIT_PASSWORD_RESET", "off");
    }
}

async fn request_reset(app: &TestApp, slug: &str, email: &str) {
    let request =
        RequestPasswordResetRequest { email: email.into(), organization_slug: slug.into() };
    app.anonymous().auth().request_password_reset(request).await.expect("queued");
}

async fn change_email(
    client: &Client,
    user_id: &str,
    email: &str,
) -> Result<Response<UpdateUserResponse>, Status> {
    let request = UpdateUserRequest {
        user_id: user_id.into(),
        email: Some(email.into()),
        update_mask: mask(&["email"]),
        ..UpdateUserRequest::default()
    };
    client.users().update_user(request).await
}

async fn count(owner: &mut PgConnection, condition: &str) -> i64 {
    let query = format!("select count(*) from mail_outbox where {condition}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(owner).await.expect("a count")
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
    request_reset(&app, "acme", &ada.email).await;
    until_tried(&app, "password_reset").await;
    let database = app.database.clone();
    drop(app);
    let make_due = "update mail_outbox set due_at = now()";
    let mut owner = Cluster::get().connect_owner(&database).await;
    sqlx::query(make_due).execute(&mut owner).await.expect("due");

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
    request_reset(&app, "acme", &ada.email).await;
    let mails = || async { count(&mut direct.owner().await, "kind = 'password_reset'").await };
    until(20, || async { mails().await == 1 }).await;
    proxy.when_sent("remove_mail", Then::Hold);
    let first = server.nth(1).await;
    proxy.until_held().await;
    drop(app);
    // Make the mail due now, so that the other server need not wait for the end of the lease.
    let make_due = "update mail_outbox set due_at = now()";
    sqlx::query(make_due).execute(&mut direct.owner().await).await.expect("due");
    let _next = TestApp::on(&direct.database, mail_settings(&server.url)).await;
    let second = server.nth(2).await;
    assert_eq!(message_id(&first.text), message_id(&second.text));
    assert_eq!(first.link(), second.link());
    until(20, || async { mails().await == 0 }).await;
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
        change_email(&acme, &user, &new_address).await.expect("changed");
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
    let result = change_email(&acme, &acme.user_id, "new@acme.test").await;
    refused(result, Code::ResourceExhausted, "OVERLOADED");
    let request = GetUserRequest { user_id: acme.user_id.clone() };
    let user = acme.users().get_user(request).await.expect("found").into_inner().user;
    assert_eq!(user.expect("the user").email, acme.email);
    change_email(&other, &other.user_id, "new@other.test").await.expect("another tenant's");
}

#[tokio::test]
async fn a_mail_that_was_not_sent_in_time_is_dropped() {
    let app = TestApp::with(mail_settings(UNREACHABLE)).await;
    let acme = app.tenant("acme").await;
    change_email(&acme, &acme.user_id, "new@acme.test").await.expect("changed");
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
    change_email(&acme, &acme.user_id, "new@acme.test").await.expect("changed");
    until_tried(&app, "email_changed").await;
    let delete = DeleteTenantRequest { tenant: "acme".into(), ..DeleteTenantRequest::default() };
    root.tenants().delete_tenant(delete).await.expect("deleted");
    until(20, || async { count(&mut app.owner().await, "true").await == 0 }).await;
}
