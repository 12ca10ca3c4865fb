//! `RequestPasswordReset` and `ResetPassword`: a password reset by email.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tenantry::proto::v1::{
    ChangePasswordRequest, DisableUserRequest, EnableUserRequest, RefreshRequest, RegisterRequest,
    RequestPasswordResetRequest, ResetPasswordRequest, ResetPasswordResponse, SuspendTenantRequest,
    WhoAmIRequest,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{
        Client, Fault, MailServer, PASSWORD, Proxy, TestApp, assert_refused, mail_settings,
        unique_text, unknown_id, wait_until, within_seconds,
    },
    limits::{client_from, new_network_address, trusting_local_proxy},
};

const NEW_PASSWORD: &str = "quite another battery";

async fn request_reset(app: &TestApp, slug: &str, email: &str) {
    app.request_reset(slug, email).await.expect("every request gets the same response");
}

async fn reset(
    app: &TestApp,
    token: &str,
    password: &str,
) -> Result<Response<ResetPasswordResponse>, Status> {
    let request = ResetPasswordRequest { token: token.into(), new_password: password.into() };
    app.anonymous().auth().reset_password(request).await
}

async fn assert_token_refused(app: &TestApp, token: &str) {
    assert_refused(reset(app, token, NEW_PASSWORD).await, Code::Unauthenticated, "TOKEN_INVALID");
}

/// A server that sends mails, its mail server, a user, and a reset token of that user.
async fn server_with_reset_token() -> (TestApp, MailServer, Client, String) {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    // The address is unique, because mails to one address are counted across all tenants.
    let ada = acme.create_member(&format!("ada-{}", unique_text()), &[]).await;
    request_reset(&app, "acme", &ada.email).await;
    let token = mail_server.wait_for_mail(1).await.link();
    (app, mail_server, ada, token)
}

/// B17: a reset token works once, and its use ends all sessions of the user.
#[tokio::test]
async fn a_mailed_token_sets_a_password_once_and_ends_all_sessions() {
    let (app, mail_server, ada, token) = server_with_reset_token().await;
    let mail = mail_server.wait_for_mail(1).await;
    assert_eq!(mail.to, ada.email);
    assert!(mail.text.contains("Subject: A new password for"), "{}", mail.text);
    app.anonymous().login("acme", &ada.email, PASSWORD).await;

    reset(&app, &token, NEW_PASSWORD).await.expect("set");
    assert_refused(
        ada.auth().who_am_i(WhoAmIRequest {}).await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
    let refresh_request =
        RefreshRequest { refresh_token: ada.tokens.refresh_token.clone(), ..Default::default() };
    assert_refused(
        ada.auth().refresh(refresh_request).await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
    let session = app.anonymous().login("acme", &ada.email, NEW_PASSWORD).await;
    let me = session.identity().await;
    // N15: the use of the token proves that the user receives mails at the address.
    assert!(me.user.expect("the user").email_verified);
    assert_token_refused(&app, &token).await;
    for (kind, count) in
        [("password_reset_requested", 1), ("password_reset", 1), ("password_reset_failed", 1)]
    {
        assert_eq!(app.audit_event_count(&ada.tenant_id, kind).await, count, "{kind}");
    }
}

/// B17: all requests get the same response, and the response does not wait for the mail.
#[tokio::test]
async fn all_requests_get_one_response_and_only_users_who_may_sign_in_get_a_mail() {
    let mail_server = MailServer::start().await;
    let direct = TestApp::spawn().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on_database(&direct.database, |values| {
        mail_settings(&mail_server.url)(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    let platform_admin = direct.platform_admin().await;
    let (acme, suspended) =
        (direct.create_tenant("acme").await, direct.create_tenant("suspended").await);
    let request = SuspendTenantRequest { tenant: "suspended".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    let user_id = acme.create_user("off@acme.test").await;
    acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");

    for (slug, email) in [
        ("acme", "nobody@acme.test"),
        ("nowhere", "admin@acme.test"),
        ("acme", "off@acme.test"),
        ("suspended", suspended.email.as_str()),
        ("", "nobody@anywhere.test"),
    ] {
        request_reset(&app, slug, email).await;
    }
    let count_requests = || async {
        let mut count = 0;
        for tenant in [&acme.tenant_id, &suspended.tenant_id, &uuid::Uuid::nil().to_string()] {
            count += app.audit_event_count(tenant, "password_reset_requested").await;
        }
        count
    };
    wait_until(10, || async { count_requests().await == 5 }).await;
    // The statement that stores the token is held, but the response arrives.
    proxy.fault_when_sent("insert into mail_links", Fault::Hold);
    within_seconds(10, request_reset(&app, "acme", &acme.email)).await;
    proxy.wait_until_held().await;
    assert!(mail_server.mails().is_empty());
    proxy.pass();
    assert_eq!(mail_server.wait_for_mail(1).await.to, acme.email);
}

/// B17: a token is valid for ten minutes, for one user, for the current password, and only from
/// the last mail.
#[tokio::test]
async fn a_token_is_invalid_after_its_expiry_a_password_change_or_a_newer_mail() {
    let (app, mail_server, ada, token) = server_with_reset_token().await;
    let mut owner_connection = app.owner_connection().await;
    let seconds_left: f64 =
        sqlx::query_scalar("select extract(epoch from expires_at - now())::float8 from mail_links")
            .fetch_one(&mut owner_connection)
            .await
            .expect("a token");
    assert!((0.0..=600.0).contains(&seconds_left), "{seconds_left}");

    let acme_id = uuid::Uuid::parse_str(&ada.tenant_id).expect("a UUID");
    for altered_token in [
        token.replacen(&token[..4], "AAAA", 1),
        format!("{}AAAA", &token[..token.len() - 4]),
        acme_id.to_string(),
        "x".into(),
    ] {
        assert_token_refused(&app, &altered_token).await;
    }
    request_reset(&app, "acme", &ada.email).await;
    let second_token = mail_server.wait_for_mail(2).await.link();
    assert_token_refused(&app, &token).await;

    let change = ChangePasswordRequest {
        current_password: PASSWORD.into(),
        new_password: NEW_PASSWORD.into(),
    };
    ada.auth().change_password(change).await.expect("changed");
    assert_token_refused(&app, &second_token).await;

    request_reset(&app, "acme", &ada.email).await;
    let third_token = mail_server.wait_for_mail(3).await.link();
    let expire_token = "update mail_links set expires_at = now() - interval '1 second'";
    sqlx::query(expire_token).execute(&mut owner_connection).await.expect("expired");
    assert_token_refused(&app, &third_token).await;
    app.anonymous().login("acme", &ada.email, NEW_PASSWORD).await;
}

#[tokio::test]
async fn a_weak_password_does_not_use_up_the_token() {
    let (app, _mail_server, ada, token) = server_with_reset_token().await;
    assert_refused(reset(&app, &token, "short").await, Code::InvalidArgument, "INVALID_FIELDS");
    assert_refused(
        reset(&app, &token, "password1").await,
        Code::InvalidArgument,
        "PASSWORD_TOO_COMMON",
    );
    reset(&app, &token, NEW_PASSWORD).await.expect("set");
    app.anonymous().login("acme", &ada.email, NEW_PASSWORD).await;
}

/// B17: the calls have the same token, and a token works once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_concurrent_resets_exactly_one_sets_its_password() {
    let (app, _mail_server, ada, token) = server_with_reset_token().await;
    let calls = (0..6).map(|n| {
        let (app, token) = (&app, &token);
        async move {
            let password = format!("{NEW_PASSWORD} {n}");
            reset(app, token, &password).await.map(|_| password)
        }
    });
    let results = futures::future::join_all(calls).await;
    let mut successful_passwords: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
    // Exactly one call has succeeded: after `pop`, the list is empty.
    let (Some(password), true) = (successful_passwords.pop(), successful_passwords.is_empty())
    else {
        panic!("{successful_passwords:?}")
    };
    app.anonymous().login("acme", &ada.email, &password).await;
}

/// Mails to an account are limited, and the client does not learn that a mail was not sent.
#[tokio::test]
async fn an_account_gets_at_most_three_mails_in_a_short_time() {
    let (app, mail_server, ada, _) = server_with_reset_token().await;
    for _ in 0..5 {
        request_reset(&app, "acme", &ada.email.to_uppercase()).await;
    }
    let requested = "password_reset_requested";
    // One request of `server_with_reset_token` and the five requests above.
    wait_until(10, || async { app.audit_event_count(&ada.tenant_id, requested).await == 6 }).await;
    mail_server.wait_for_mail(3).await;
    // Another account has its own limit of three. When the mail to the other account has arrived,
    // the earlier requests have been handled.
    request_reset(&app, "acme", "admin@acme.test").await;
    wait_until(10, || async {
        mail_server.mails().iter().any(|mail| mail.to == "admin@acme.test")
    })
    .await;
    assert_eq!(mail_server.mails().iter().filter(|mail| mail.to == ada.email).count(), 3);
}

/// Registers tenants whose administrators all have this email address, which is not verified.
async fn register_tenants(app: &TestApp, email: &str, count: usize) -> Vec<Client> {
    let mut tenants = Vec::new();
    for n in 0..count {
        let slug = format!("t{n}");
        let request = RegisterRequest {
            email: email.into(),
            password: PASSWORD.into(),
            organization_name: slug.clone(),
            organization_slug: slug.clone(),
            ..RegisterRequest::default()
        };
        app.anonymous().auth().register(request).await.expect("a tenant signs up");
        tenants.push(app.anonymous().login(&slug, email, PASSWORD).await);
    }
    tenants
}

/// Registers five tenants whose administrators have this email address. The last administrator, the
/// owner, has verified the address. Returns the other administrators, and the owner.
async fn register_tenants_of_others_and_owner(app: &TestApp, email: &str) -> (Vec<Client>, Client) {
    let mut tenants = register_tenants(app, email, 5).await;
    let owner = tenants.pop().expect("a tenant");
    let verify_email = "update users set email_verified = true where tenant_id = $1::uuid";
    let result = sqlx::query(verify_email)
        .bind(&owner.tenant_id)
        .execute(&mut app.owner_connection().await)
        .await;
    result.expect("the update succeeds");
    (tenants, owner)
}

const MAILBOX_LIMITED: &str = r#"tenantry_rate_limited_total{class="password_reset",by="mailbox"}"#;

/// The limit applies even when many tenants have a user with the address.
#[tokio::test]
async fn a_mailbox_gets_at_most_ten_mails_in_a_short_time_from_all_tenants() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let email = format!("ada-{}@mailbox.test", unique_text());
    let tenants = register_tenants(&app, &email, 4).await;
    for tenant in &tenants {
        for _ in 0..3 {
            request_reset(&app, &tenant.slug, &email.to_uppercase()).await;
        }
    }
    // Of the 12 requests, 10 send a mail and 2 are over the limit.
    let count_mails = || mail_server.mails().iter().filter(|mail| mail.to == email).count();
    wait_until(20, || async { count_mails() == 10 }).await;
    wait_until(10, || async { app.metric(MAILBOX_LIMITED).await == Some(2.0) }).await;
    assert_eq!(count_mails(), 10);
    // Notices of changed emails have their own limit, so each tenant's change sends one.
    for tenant in &tenants {
        tenant
            .change_email(&tenant.user_id, &format!("{}@mailbox.test", unique_text()))
            .await
            .expect("changed");
    }
    wait_until(20, || async { count_mails() == 14 }).await;
}

/// N15: the owner of a verified address gets a reset mail, even when mails to accounts that others
/// created with this address have reached the limit.
#[tokio::test]
async fn others_cannot_use_up_the_reset_mails_of_a_verified_address() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let email = format!("ada-{}@mailbox.test", unique_text());
    let (tenants, owner) = register_tenants_of_others_and_owner(&app, &email).await;
    for tenant in &tenants {
        for _ in 0..3 {
            request_reset(&app, &tenant.slug, &email).await;
        }
    }
    let count_mails = || mail_server.mails().iter().filter(|mail| mail.to == email).count();
    wait_until(20, || async { count_mails() == 10 }).await;
    wait_until(10, || async { app.metric(MAILBOX_LIMITED).await == Some(2.0) }).await;
    request_reset(&app, &owner.slug, &email).await;
    wait_until(20, || async { count_mails() == 11 }).await;
}

/// N11: the owner of a verified address gets the notice of a changed email, even when mails to
/// other accounts with this address have reached the limit.
#[tokio::test]
async fn the_owner_of_an_address_is_notified_of_a_change_despite_other_mails() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let email = format!("ada-{}@mailbox.test", unique_text());
    let (tenants, owner) = register_tenants_of_others_and_owner(&app, &email).await;
    let new_address = || format!("{}@mailbox.test", unique_text());
    // Four tenants make 12 changes that send a notice to the address: 10 are sent, and 2 are over
    // the limit. Each change back to the address sends a notice to the new address.
    for tenant in &tenants {
        for _ in 0..3 {
            tenant.change_email(&tenant.user_id, &new_address()).await.expect("changed");
            tenant.change_email(&tenant.user_id, &email).await.expect("changed");
        }
    }
    let count_mails = || mail_server.mails().iter().filter(|mail| mail.to == email).count();
    wait_until(20, || async { count_mails() == 10 }).await;
    wait_until(10, || async { app.metric(MAILBOX_LIMITED).await == Some(2.0) }).await;
    owner.change_email(&owner.user_id, &new_address()).await.expect("changed");
    wait_until(20, || async { count_mails() == 11 }).await;
}

/// N11, N12: the queued requests of a tenant, or from a network, block no other tenants and networks,
/// and no notice of a changed email. The queue slot of a notice is reserved before the change.
#[tokio::test]
async fn queued_requests_of_a_tenant_and_a_network_do_not_block_others() {
    // A mail server that accepts connections but never answers.
    let silent_server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("smtp://{}", silent_server.local_addr().expect("an address"));
    let app = TestApp::with_settings(|values| {
        values.set("MAIL_URL", url);
        values.set("RATE_LIMIT_PASSWORD_RESET", "off");
        trusting_local_proxy(values);
    })
    .await;
    let request_from = async |network: &str, slug: &str| {
        let request = RequestPasswordResetRequest {
            email: "nobody@acme.test".into(),
            organization_slug: slug.into(),
        };
        client_from(&app, network).auth().request_password_reset(request).await
    };
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let mut members = Vec::new();
    for n in 0..8 {
        members.push(acme.create_member(&format!("m{n}-{}", unique_text()), &[]).await);
    }
    for member in &members {
        request_reset(&app, "acme", &member.email).await;
    }
    // More requests than the 125 that a tenant, or a network, may have in the queue.
    let (network, other_network) = (new_network_address(), new_network_address());
    let mut refusal = None;
    for _ in 0..200 {
        refusal = request_from(&network, "acme").await.err();
        if refusal.is_some() {
            break;
        }
    }
    let refusal = refusal.map_or(Ok(Response::new(())), Err);
    assert_refused(refusal, Code::ResourceExhausted, "OVERLOADED");
    for (network, slug) in [(&network, "other"), (&other_network, "acme")] {
        let result = request_from(network, slug).await;
        assert_refused(result, Code::ResourceExhausted, "OVERLOADED");
    }
    request_from(&other_network, "other")
        .await
        .expect("neither the tenant nor the network is full");
    let email = format!("{}@acme.test", unique_text());
    acme.change_email(&members[0].user_id, &email).await.expect("changed");
    other
        .change_email(&other.user_id, &format!("{}@other.test", unique_text()))
        .await
        .expect("changed");
}

#[tokio::test]
async fn a_network_above_its_rate_is_refused() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(|values| {
        mail_settings(&mail_server.url)(values);
        values.set("RATE_LIMIT_PASSWORD_RESET", "3/1h,off");
    })
    .await;
    // The rate allows three calls.
    for _ in 0..2 {
        request_reset(&app, "", "nobody@x.test").await;
    }
    assert_token_refused(&app, "x").await;
    let request = RequestPasswordResetRequest { email: "a@x.test".into(), ..Default::default() };
    let result = app.anonymous().auth().request_password_reset(request).await;
    assert_refused(result, Code::ResourceExhausted, "RATE_LIMITED");
    assert_refused(reset(&app, "x", NEW_PASSWORD).await, Code::ResourceExhausted, "RATE_LIMITED");
}

/// G02: an attempt counts for the rate limit of the tenant in the token.
#[tokio::test]
async fn attempts_with_invented_tokens_are_limited_by_tenant() {
    let app = TestApp::with_settings(|values| {
        values.set("RATE_LIMIT_PASSWORD_RESET", "off,3/1h");
    })
    .await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    // The form of a real token: the tenant's id, a user's id, and the secret.
    let invented_token = |tenant: &str| {
        let id_bytes = |id: &str| id.parse::<uuid::Uuid>().expect("a UUID").into_bytes();
        let bytes = [id_bytes(tenant).as_slice(), &id_bytes(&unknown_id()), &[7; 32]].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    for _ in 0..3 {
        let token = invented_token(&acme.tenant_id);
        assert_refused(
            reset(&app, &token, NEW_PASSWORD).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    }
    let token = invented_token(&acme.tenant_id);
    assert_refused(
        reset(&app, &token, NEW_PASSWORD).await,
        Code::ResourceExhausted,
        "RATE_LIMITED",
    );
    let token = invented_token(&other.tenant_id);
    assert_refused(reset(&app, &token, NEW_PASSWORD).await, Code::Unauthenticated, "TOKEN_INVALID");
    assert_eq!(app.audit_event_count(&acme.tenant_id, "password_reset_failed").await, 3);
}

#[tokio::test]
async fn a_temporary_mail_failure_is_retried_and_a_permanent_failure_is_not() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(|values| {
        mail_settings(&mail_server.url)(values);
        values.set("PASSWORD_RESET_URL", "https://app.test/reset?token={token}&x=1");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    mail_server.refuse(&["451 later", "421 busy"]);
    request_reset(&app, "acme", &acme.email).await;
    let link = mail_server.wait_for_mail(1).await.link();
    let token = link.strip_prefix("https://app.test/reset?token=").expect("the configured URL");
    let token = token.strip_suffix("&x=1").expect("the configured URL");

    mail_server.refuse(&["550 no such mailbox"]);
    request_reset(&app, "acme", "admin@acme.test").await;
    let failed_mails = "tenantry_mails_total{outcome=\"failed\"}";
    wait_until(10, || async { app.metric(failed_mails).await == Some(1.0) }).await;
    assert_eq!(mail_server.mails().len(), 1);
    // The token of the refused mail replaced this token, though nobody received the new token.
    assert_token_refused(&app, token).await;
}

/// A shutdown completes accepted requests.
#[tokio::test]
async fn a_shutdown_sends_the_mails_that_were_requested() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let acme = app.create_tenant("acme").await;
    request_reset(&app, "acme", &acme.email).await;
    tokio::time::timeout(Duration::from_secs(10), app.stop()).await.expect("the server stops");
    assert_eq!(mail_server.mails().len(), 1);
}

#[tokio::test]
async fn without_a_mail_server_password_reset_is_off() {
    let app = TestApp::shared();
    let request = RequestPasswordResetRequest { email: "a@x.test".into(), ..Default::default() };
    let result = app.anonymous().auth().request_password_reset(request).await;
    assert_refused(result, Code::FailedPrecondition, "MAIL_OFF");
    assert_token_refused(&app, "x").await;
}

/// N07: a change of the user's email revokes the tokens that were mailed to the old address.
#[tokio::test]
async fn a_token_is_invalid_after_a_change_of_email_even_during_the_request() {
    let mail_server = MailServer::start().await;
    let direct = TestApp::spawn().await;
    let acme = direct.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on_database(&direct.database, |values| {
        mail_settings(&mail_server.url)(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    let grace = acme.create_user("grace@acme.test").await;
    // When the server sends this statement, it has locked the user's row, and has not yet stored
    // the token.
    proxy.fault_when_sent(r#"settings as "settings: Stored""#, Fault::Hold);
    request_reset(&app, "acme", "grace@acme.test").await;
    proxy.wait_until_held().await;
    let email_change = tokio::spawn({
        let acme = acme.clone();
        async move { acme.change_email(&grace, "hopper@acme.test").await.expect("changed") }
    });
    // The change waits for the lock of the user's row.
    wait_until(10, || async {
        let count_waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                     and datname = current_database()";
        let waiting: i64 = sqlx::query_scalar(count_waiting)
            .fetch_one(&mut direct.owner_connection().await)
            .await
            .expect("a count");
        waiting == 1
    })
    .await;
    proxy.pass();
    email_change.await.expect("changed");
    let token = mail_server.wait_for_mail(1).await.link();
    assert_token_refused(&app, &token).await;

    request_reset(&app, "acme", "ada@acme.test").await;
    let token = mail_server.wait_for_mail(2).await.link();
    acme.change_email(&ada, "lovelace@acme.test").await.expect("changed");
    assert_token_refused(&app, &token).await;
    acme.change_email(&ada, "ada@acme.test").await.expect("changed");
    assert_token_refused(&app, &token).await;
}

/// N07: disabling a user revokes the user's reset tokens permanently.
#[tokio::test]
async fn a_token_stays_invalid_after_its_user_was_disabled() {
    let (app, _mail_server, ada, token) = server_with_reset_token().await;
    let acme = app.anonymous().login("acme", "admin@acme.test", PASSWORD).await;
    let user_id = ada.user_id.clone();
    acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    assert_token_refused(&app, &token).await;
    let user_id = ada.user_id.clone();
    acme.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
    assert_token_refused(&app, &token).await;
    app.anonymous().login("acme", &ada.email, PASSWORD).await;
}

/// N07: a reset token is bound to its tenant, like a refresh token.
#[tokio::test]
async fn a_token_works_only_in_its_own_tenant() {
    let (app, _mail_server, ada, token) = server_with_reset_token().await;
    let other = app.create_tenant("other").await;
    let reset_in_tenant = async |header: &str, tenant: &str| {
        let request =
            ResetPasswordRequest { token: token.clone(), new_password: NEW_PASSWORD.into() };
        app.anonymous().with_metadata(header, tenant).auth().reset_password(request).await
    };
    for (header, tenant) in [
        ("x-tenant-id", other.tenant_id.as_str()),
        ("x-organization-slug", "other"),
        ("x-organization-slug", "nowhere"),
    ] {
        assert_refused(
            reset_in_tenant(header, tenant).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    }
    reset_in_tenant("x-tenant-id", &ada.tenant_id).await.expect("set");
}

/// N15: a request without a tenant sends a mail to each user with this verified address.
#[tokio::test]
async fn without_a_tenant_only_verified_addresses_get_mails() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let (a, b, c) =
        (app.create_tenant("a").await, app.create_tenant("b").await, app.create_tenant("c").await);
    let email = "ada@both.test";
    for tenant in [&a, &b] {
        tenant.create_user(email).await;
        request_reset(&app, &tenant.slug, email).await;
        // A password reset with the mailed token also verifies the address.
        let mail_number = mail_server.mails().len() + 1;
        let token = mail_server.wait_for_mail(mail_number).await.link();
        reset(&app, &token, NEW_PASSWORD).await.expect("set");
    }
    c.create_user(email).await;
    // Two mails were sent before. The request sends one mail for each verified address.
    request_reset(&app, "", email).await;
    mail_server.wait_for_mail(4).await;
    for tenant in [&a, &b] {
        let requested = "password_reset_requested";
        wait_until(10, || async { app.audit_event_count(&tenant.tenant_id, requested).await == 2 })
            .await;
    }
    assert_eq!(mail_server.mails().len(), 4);
    assert_eq!(app.audit_event_count(&c.tenant_id, "password_reset_requested").await, 0);
}

#[tokio::test]
async fn with_tenantless_sign_in_off_a_request_must_specify_the_tenant() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(|values| {
        mail_settings(&mail_server.url)(values);
        values.set("TENANTLESS_SIGN_IN", "off");
    })
    .await;
    let request = RequestPasswordResetRequest { email: "a@x.test".into(), ..Default::default() };
    let result = app.anonymous().auth().request_password_reset(request).await;
    assert_refused(result, Code::InvalidArgument, "TENANT_REQUIRED");
}

/// N17: anyone can choose a tenant's name and enter any address, so the name must not appear in a
/// mail.
#[tokio::test]
async fn a_mail_does_not_contain_the_name_of_the_tenant() {
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
    let request = RegisterRequest {
        email: "ada@acme.test".into(),
        password: PASSWORD.into(),
        organization_name: "You have won: https://prize.test/claim".into(),
        organization_slug: "acme".into(),
        ..RegisterRequest::default()
    };
    app.anonymous().auth().register(request).await.expect("a tenant signs up");
    request_reset(&app, "acme", "ada@acme.test").await;
    let mail = mail_server.wait_for_mail(1).await;
    assert!(mail.text.contains("Subject: A new password for acme"), "{}", mail.text);
    assert!(!mail.text.contains("prize") && !mail.text.contains("won"), "{}", mail.text);
}
