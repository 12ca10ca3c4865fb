//! A mail server that stores every mail.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use tenantry::{
    config::Values,
    proto::v1::{
        ChangeEmailRequest, ChangeEmailResponse, RequestEmailVerificationRequest,
        RequestPasswordResetRequest, UpdateUserRequest, UpdateUserResponse, VerifyEmailRequest,
        VerifyEmailResponse,
    },
};
use tonic::{Response, Status};

use super::{Client, TestApp, mask, wait_until};

/// Settings for a server that sends its mails to `url` and does not limit the rate of resets.
pub fn mail_settings(url: &str) -> impl Fn(&mut Values) + use<> {
    let url = url.to_owned();
    move |values| {
        values.set("MAIL_URL", url.clone());
        values.set("RATE_LIMIT_PASSWORD_RESET", "off");
    }
}

impl TestApp {
    /// Requests a password reset for an account that may or may not exist.
    pub async fn request_reset(&self, slug: &str, email: &str) -> Result<(), Status> {
        let request =
            RequestPasswordResetRequest { email: email.into(), organization_slug: slug.into() };
        self.anonymous().auth().request_password_reset(request).await.map(drop)
    }

    /// Requests the verification of an email of an account that may or may not exist.
    pub async fn request_verification(&self, slug: &str, email: &str) -> Result<(), Status> {
        let request =
            RequestEmailVerificationRequest { email: email.into(), organization_slug: slug.into() };
        self.anonymous().auth().request_email_verification(request).await.map(drop)
    }

    /// Uses the token of a mail. Only a registration needs the password.
    pub async fn verify_email(
        &self,
        token: &str,
        password: &str,
    ) -> Result<Response<VerifyEmailResponse>, Status> {
        let request = VerifyEmailRequest {
            token: token.into(),
            password: password.into(),
            ..VerifyEmailRequest::default()
        };
        self.anonymous().auth().verify_email(request).await
    }
}

impl Client {
    /// Requests a change of the client's own email.
    pub async fn request_email_change(
        &self,
        new_email: &str,
        password: &str,
    ) -> Result<Response<ChangeEmailResponse>, Status> {
        let request = ChangeEmailRequest {
            current_password: password.into(),
            new_email: new_email.into(),
            ..ChangeEmailRequest::default()
        };
        self.auth().change_email(request).await
    }

    /// Changes the email of a user.
    pub async fn change_email(
        &self,
        user_id: &str,
        email: &str,
    ) -> Result<Response<UpdateUserResponse>, Status> {
        let request = UpdateUserRequest {
            user_id: user_id.into(),
            email: Some(email.into()),
            update_mask: mask(&["email"]),
            ..UpdateUserRequest::default()
        };
        self.users().update_user(request).await
    }
}

/// An SMTP server (RFC 5321). Dropping it stops the server.
pub struct MailServer {
    pub url: String,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    mails: Vec<Mail>,
    /// SMTP replies that refuse the next mails, in order.
    refusals: VecDeque<&'static str>,
    /// Whether the next mail is accepted without a reply.
    withholds_reply: bool,
    /// Whether the server accepts international addresses.
    has_smtputf8: bool,
}

/// A mail that the server accepted.
#[derive(Clone, Debug)]
pub struct Mail {
    pub to: String,
    pub text: String,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { url, state, task: task.abort_handle() }
    }

    /// Refuses the next mails with these SMTP replies, in order.
    pub fn refuse(&self, replies: &[&'static str]) {
        self.state.lock().expect("no panic").refusals.extend(replies);
    }

    /// Accepts the next mail, and sends no reply to it. The client does not learn of the success.
    pub fn withhold_next_reply(&self) {
        self.state.lock().expect("no panic").withholds_reply = true;
    }

    /// Accepts international addresses (RFC 6531) from now on.
    pub fn accept_international_addresses(&self) {
        self.state.lock().expect("no panic").has_smtputf8 = true;
    }

    /// Waits for a mail to this address, and returns the last one.
    pub async fn wait_for_mail_to(&self, address: &str) -> Mail {
        let mails_to = || self.mails().into_iter().filter(|mail| mail.to == address);
        wait_until(20, || async { mails_to().next().is_some() }).await;
        mails_to().next_back().expect("a mail")
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.lock().expect("no panic").mails.clone()
    }

    /// Removes and returns all mails.
    pub fn take_mails(&self) -> Vec<Mail> {
        std::mem::take(&mut self.state.lock().expect("no panic").mails)
    }

    /// Waits for the mail with this number, counted from 1, and returns the mail.
    pub async fn wait_for_mail(&self, number: usize) -> Mail {
        wait_until(20, || async { self.mails().len() >= number }).await;
        self.mails().swap_remove(number - 1)
    }
}

impl Mail {
    /// The longest word of the text: a token, or the URL of a page with a token.
    pub fn link(&self) -> String {
        let words = self.text.split_whitespace();
        words.max_by_key(|word| word.len()).expect("the mail has words").to_owned()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut reply = "220 ready".to_owned();
    let (mut to, mut text, mut in_data) = (String::new(), String::new(), false);
    loop {
        if !reply.is_empty() && write.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
            return;
        }
        let Ok(Some(line)) = lines.next_line().await else { return };
        let upper = line.to_uppercase();
        reply = match upper.as_str() {
            "." if in_data => {
                in_data = false;
                let mut state = state.lock().expect("no panic");
                // Soft line breaks of quoted-printable (RFC 2045, 6.7).
                let text = std::mem::take(&mut text).replace("=\n", "").replace("=3D", "=");
                if let Some(refusal) = state.refusals.pop_front() {
                    refusal.into()
                } else {
                    state.mails.push(Mail { to: std::mem::take(&mut to), text });
                    let withholds_reply = std::mem::take(&mut state.withholds_reply);
                    if withholds_reply { String::new() } else { "250 accepted".into() }
                }
            }
            _ if in_data => {
                text += &line;
                text.push('\n');
                String::new()
            }
            "DATA" => {
                in_data = true;
                "354 go on".into()
            }
            "QUIT" => return,
            _ if upper.starts_with("EHLO") && state.lock().expect("no panic").has_smtputf8 => {
                "250-ready\r\n250-8BITMIME\r\n250 SMTPUTF8".into()
            }
            _ => {
                // `RCPT TO:<address>`. The server ignores the content of all other commands.
                if let Some(address) = upper.starts_with("RCPT TO:").then(|| &line[8..]) {
                    address.trim_matches(['<', '>']).clone_into(&mut to);
                }
                "250 ok".into()
            }
        };
    }
}
