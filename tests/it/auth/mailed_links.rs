//! Rules for the tokens of all mails, whatever their purpose.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use tenantry::{
    Purpose,
    proto::v1::{RegisterRequest, ResetPasswordRequest, UpdateTenantRequest},
};
use tonic::{Code, Status};

use crate::harness::{
    Client, MailServer, PASSWORD, TestApp, assert_refused, mail_settings, struct_of, unique_text,
};

/// A server, its mail server, and two tenants that anybody may join.
struct Setup {
    app: TestApp,
    mail_server: MailServer,
    acme: Client,
    other: Client,
}

impl Setup {
    async fn new() -> Self {
        let mail_server = MailServer::start().await;
        let app = TestApp::with_settings(mail_settings(&mail_server.url)).await;
        let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
        for tenant in [&acme, &other] {
            let settings = struct_of(json!({ "self_registration": true }));
            let request = UpdateTenantRequest { settings, ..UpdateTenantRequest::default() };
            tenant.tenants().update_tenant(request).await.expect("anybody may join");
        }
        Self { app, mail_server, acme, other }
    }

    /// Requests a token with this purpose for a new user or a new address, and returns the token.
    async fn request_token(&self, purpose: Purpose) -> String {
        let email = format!("{}@acme.test", unique_text());
        let to = match purpose {
            Purpose::PasswordReset => {
                self.acme.create_user(&email).await;
                self.app.request_reset("acme", &email).await.expect("accepted");
                email
            }
            Purpose::EmailVerification => {
                self.acme.create_user(&email).await;
                self.app.request_verification("acme", &email).await.expect("accepted");
                email
            }
            Purpose::EmailChange => {
                let ada = self.acme.create_member(&unique_text(), &[]).await;
                ada.request_email_change(&email, PASSWORD).await.expect("accepted");
                email
            }
            Purpose::Registration => {
                let request = RegisterRequest {
                    email: email.clone(),
                    password: PASSWORD.into(),
                    organization_slug: "acme".into(),
                    ..RegisterRequest::default()
                };
                self.app.anonymous().auth().register(request).await.expect("accepted");
                email
            }
        };
        self.mail_server.wait_for_mail_to(&to).await.link()
    }

    /// Uses a token with the method for this purpose. The client specifies this tenant in the
    /// metadata, or no tenant when `tenant` is empty.
    async fn redeem_in(&self, tenant: &str, purpose: Purpose, token: &str) -> Result<(), Status> {
        let client = match tenant {
            "" => self.app.anonymous(),
            tenant => self.app.anonymous().with_metadata("x-organization-slug", tenant),
        };
        if purpose == Purpose::PasswordReset {
            let new_password = "quite another battery".into();
            let request = ResetPasswordRequest { token: token.into(), new_password };
            return client.auth().reset_password(request).await.map(drop);
        }
        let request = tenantry::proto::v1::VerifyEmailRequest {
            token: token.into(),
            password: PASSWORD.into(),
            ..Default::default()
        };
        client.auth().verify_email(request).await.map(drop)
    }

    async fn redeem(&self, purpose: Purpose, token: &str) -> Result<(), Status> {
        self.redeem_in("", purpose, token).await
    }

    async fn assert_refused_in(&self, tenant: &str, purpose: Purpose, token: &str, case: &str) {
        println!("{purpose:?}: {case}");
        let result = self.redeem_in(tenant, purpose, token).await.map(tonic::Response::new);
        assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    }

    async fn assert_refused(&self, purpose: Purpose, token: &str, case: &str) {
        self.assert_refused_in("", purpose, token, case).await;
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement)
            .execute(&mut self.app.owner_connection().await)
            .await
            .expect(statement);
    }
}

/// A copy of a token with changed bytes. A token consists of the id of the tenant (16 bytes), the
/// id of the user (16 bytes), the secret (32 bytes) and the mark of the purpose.
fn alter_token(token: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(token).expect("base64");
    change(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn id_bytes(id: &str) -> [u8; 16] {
    *uuid::Uuid::parse_str(id).expect("a UUID").as_bytes()
}

/// N46: a token is refused when its secret is wrong, or when it contains another purpose, user or
/// tenant.
#[tokio::test]
async fn a_token_of_every_purpose_is_bound_to_its_purpose_user_and_tenant() {
    let setup = Setup::new().await;
    for purpose in Purpose::ALL {
        let token = setup.request_token(purpose).await;
        let secret = alter_token(&token, |bytes| bytes[40] ^= 1);
        setup.assert_refused(purpose, &secret, "wrong").await;
        let (acme, other) = (&setup.acme, &setup.other);
        let user =
            alter_token(&token, |bytes| bytes[16..32].copy_from_slice(&id_bytes(&acme.user_id)));
        setup.assert_refused(purpose, &user, "another user").await;
        let tenant =
            alter_token(&token, |bytes| bytes[..16].copy_from_slice(&id_bytes(&other.tenant_id)));
        setup.assert_refused(purpose, &tenant, "another tenant").await;
        setup.assert_refused_in("other", purpose, &token, "sent with another tenant").await;
        setup.assert_refused_in("nowhere", purpose, &token, "sent with an unknown tenant").await;
        for other_purpose in Purpose::ALL.into_iter().filter(|other| *other != purpose) {
            // The token as it is, with the method of the other purpose.
            if [purpose, other_purpose].contains(&Purpose::PasswordReset) {
                setup.assert_refused(other_purpose, &token, "the other method").await;
            }
            // The token with the mark of the other purpose.
            let other_token = setup.request_token(other_purpose).await;
            let mark = BASE64_URL_SAFE_NO_PAD.decode(&other_token).expect("base64").split_off(64);
            let token_with_other_mark = alter_token(&token, |bytes| {
                bytes.truncate(64);
                bytes.extend(mark);
            });
            setup.assert_refused(other_purpose, &token_with_other_mark, "another purpose").await;
        }
        setup.redeem_in("acme", purpose, &token).await.expect("the token is still valid");
        setup.assert_refused(purpose, &token, "replayed").await;
    }
}

/// N46: a token is refused after its expiry. A token for a new password is valid for ten minutes,
/// and every other token for an hour.
#[tokio::test]
async fn a_token_of_every_purpose_expires() {
    let setup = Setup::new().await;
    for purpose in Purpose::ALL {
        let token = setup.request_token(purpose).await;
        let expected_seconds = if purpose == Purpose::PasswordReset { 600 } else { 3600 };
        assert_eq!(purpose.lifetime().as_secs(), expected_seconds, "{purpose:?}");
        let seconds_left: f64 = sqlx::query_scalar(
            "select extract(epoch from max(expires_at) - now())::float8 from (
                 select expires_at from mail_links union all select expires_at from registrations
             ) links",
        )
        .fetch_one(&mut setup.app.owner_connection().await)
        .await
        .expect("a time");
        assert!((0.0..=3600.0).contains(&seconds_left), "{seconds_left}");
        setup
            .execute(
                "update mail_links set expires_at = now() - interval '1 second';
                 update registrations set expires_at = now() - interval '1 second'",
            )
            .await;
        setup.assert_refused(purpose, &token, "expired").await;
    }
}

/// N46: a token is refused when the user's address is no longer the address of the mail. This holds
/// even without the trigger that deletes the links of a changed address. A token is also refused
/// when the stored new address was altered.
#[tokio::test]
async fn a_token_of_every_purpose_is_bound_to_its_address() {
    let setup = Setup::new().await;
    setup.execute("alter table users disable trigger users_links").await;
    for purpose in Purpose::ALL {
        let token = setup.request_token(purpose).await;
        setup
            .execute(
                "update mail_links set address_index = sha256('another address');
                 update registrations set content = content || '\\x00'::bytea",
            )
            .await;
        let refusal = setup.redeem(purpose, &token).await.expect_err("the address is another one");
        let has_stored_address = matches!(purpose, Purpose::EmailChange | Purpose::Registration);
        let code = if has_stored_address { Code::DataLoss } else { Code::Unauthenticated };
        assert_eq!(refusal.code(), code, "{purpose:?}");
    }
}

/// N46: only the last token of a user for a purpose is valid.
#[tokio::test]
async fn a_newer_token_replaces_the_earlier_one() {
    let setup = Setup::new().await;
    let ada = setup.acme.create_member(&unique_text(), &[]).await;
    let email = || format!("{}@acme.test", unique_text());
    let mut tokens = Vec::new();
    for address in [email(), email()] {
        ada.request_email_change(&address, PASSWORD).await.expect("accepted");
        tokens.push(setup.mail_server.wait_for_mail_to(&address).await.link());
    }
    setup.assert_refused(Purpose::EmailChange, &tokens[0], "replaced").await;
    setup.redeem(Purpose::EmailChange, &tokens[1]).await.expect("the last token is valid");
}
