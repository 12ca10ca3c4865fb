//! A user who registers, proves the address, changes it, proves the new address, resets the
//! password, and is deleted.

use std::{path::Path, time::Duration};

use tenantry::proto::v1::{
    ChangeEmailRequest, DeleteUserRequest, RegisterRequest, RequestEmailVerificationRequest,
    RequestPasswordResetRequest, ResetPasswordRequest, VerifyEmailRequest,
};
use tokio::{
    fs,
    time::{Instant, sleep},
};

use super::{Mix, Result};
use crate::{
    soak::{api::CallFailed, setup::Tenant},
    workload::PASSWORD,
};

const NEW_PASSWORD: &str = "another horse battery staple";

/// Maximum time until a mail is written.
const MAIL_LIMIT: Duration = Duration::from_secs(30);

/// Minimum length of a token. Shorter words of a mail are not tokens.
const TOKEN_LENGTH: usize = 80;

impl Mix {
    pub(super) async fn reset_password(&self, tenant: &Tenant) -> Result {
        let (admin, anonymous) = (&tenant.admin, &self.anonymous);
        let new_address = || format!("{}@{}.test", self.new_name("registered"), tenant.slug);
        let (first_email, email) = (new_address(), new_address());
        let request = RegisterRequest {
            email: first_email.clone(),
            password: PASSWORD.to_owned(),
            organization_slug: tenant.slug.clone(),
            ..Default::default()
        };
        anonymous
            .call("Register", async || anonymous.auth().register(request.clone()).await)
            .await?;
        let user_id = self.prove_address(&first_email, PASSWORD).await?;
        self.change_address(tenant, &first_email, &email).await?;
        self.prove_address(&email, "").await?;
        let request = RequestPasswordResetRequest {
            email: email.clone(),
            organization_slug: tenant.slug.clone(),
        };
        let sent = async || anonymous.auth().request_password_reset(request.clone()).await;
        anonymous.call("RequestPasswordReset", sent).await?;
        let token = take_token(&self.mail_dir, &email).await.ok_or(CallFailed)?;
        let request = ResetPasswordRequest { token, new_password: NEW_PASSWORD.to_owned() };
        anonymous
            .call("ResetPassword", async || anonymous.auth().reset_password(request.clone()).await)
            .await?;
        self.end_all_sessions(tenant, &email, user_id.clone(), NEW_PASSWORD).await?;
        let request = DeleteUserRequest { user_id, ..Default::default() };
        admin
            .call("DeleteUser", async || admin.users().delete_user(request.clone()).await)
            .await
            .map(drop)
    }
}

impl Mix {
    /// Proves an address with the token in its mail. Returns the id of the user. The token of a
    /// registration also needs the password; for other tokens, `password` is empty.
    async fn prove_address(&self, email: &str, password: &str) -> Result<String> {
        let anonymous = &self.anonymous;
        let token = take_token(&self.mail_dir, email).await.ok_or(CallFailed)?;
        let request =
            VerifyEmailRequest { token, password: password.to_owned(), ..Default::default() };
        let verified = anonymous
            .call("VerifyEmail", async || anonymous.auth().verify_email(request.clone()).await)
            .await?;
        Ok(verified.user.unwrap_or_default().id)
    }

    /// Signs in, and asks for a mail that changes the address. Before that, asks for a proof of the
    /// current address, although it is proved already; so the server sends no mail for it.
    async fn change_address(&self, tenant: &Tenant, email: &str, new_email: &str) -> Result {
        let (_, user) = self.anonymous.sign_in(&tenant.slug, email, PASSWORD).await?;
        let request = RequestEmailVerificationRequest {
            email: email.to_owned(),
            organization_slug: tenant.slug.clone(),
        };
        let anonymous = &self.anonymous;
        let sent = async || anonymous.auth().request_email_verification(request.clone()).await;
        anonymous.call("RequestEmailVerification", sent).await?;
        let request = ChangeEmailRequest {
            current_password: PASSWORD.to_owned(),
            new_email: new_email.to_owned(),
            ..Default::default()
        };
        user.call("ChangeEmail", async || user.auth().change_email(request.clone()).await)
            .await
            .map(drop)
    }
}

/// Waits for the mail to this address, deletes it, and returns the token in it.
async fn take_token(dir: &Path, email: &str) -> Option<String> {
    let began = Instant::now();
    while began.elapsed() < MAIL_LIMIT {
        let mut files = fs::read_dir(dir).await.ok()?;
        while let Ok(Some(file)) = files.next_entry().await {
            // Another worker may have deleted the file.
            let Ok(mail) = fs::read_to_string(file.path()).await else { continue };
            if mail.contains(email)
                && let Some(token) = token_of(&mail)
            {
                fs::remove_file(file.path()).await.ok()?;
                return Some(token);
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    None
}

/// The token in a mail, whose long lines are folded (RFC 2045, 6.7).
fn token_of(mail: &str) -> Option<String> {
    let text = mail.replace("=\r\n", "").replace("=3D", "=");
    let is_token = |word: &&str| {
        word.len() >= TOKEN_LENGTH
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.split_whitespace().find(is_token).map(str::to_owned)
}
