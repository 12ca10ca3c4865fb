//! Sends mails by SMTP, or writes them to a folder.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use lettre::{
    AsyncFileTransport, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::Error as SmtpError,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::outbox::Mail;
use crate::{
    config::{self, MailDestination},
    email,
};

/// Timeout of one attempt to send a mail.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends mails from one sender address.
pub struct Mailer {
    transport: Transport,
    from: Mailbox,
    mails: Family<OutcomeLabel, Counter>,
    /// Whether the last attempt failed because the mail server did not answer.
    is_unreachable: AtomicBool,
}

enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(AsyncFileTransport<Tokio1Executor>),
}

/// The final result of a mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The mail server accepted the mail.
    Sent,
    /// The mail can never be sent, for example because the mail server refused it permanently.
    Failed,
    /// The mail expired before the mail server accepted it.
    Expired,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Sent, Self::Failed, Self::Expired];

    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Expired => "expired",
        };
        OutcomeLabel { outcome }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Mailer {
    /// Creates a mailer. The mailer connects to the mail server when it sends the first mail.
    ///
    /// # Errors
    /// When `MAIL_URL` is invalid, or the folder can't be created.
    pub fn new(mail: &config::Mail, registry: &mut Registry) -> anyhow::Result<Self> {
        let transport = match &mail.destination {
            MailDestination::Smtp(url) => {
                let smtp = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret());
                let smtp = smtp.ok().context("MAIL_URL is not a valid SMTP URL")?;
                Transport::Smtp(smtp.timeout(Some(TIMEOUT)).build())
            }
            MailDestination::Folder(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("can't create {}", dir.display()))?;
                Transport::Folder(AsyncFileTransport::new(dir))
            }
        };
        let mails = Family::<OutcomeLabel, Counter>::default();
        registry.register("tenantry_mails", "Mails, by outcome", mails.clone());
        for outcome in Outcome::ALL {
            drop(mails.get_or_create(&outcome.label()));
        }
        let is_unreachable = AtomicBool::new(false);
        let mut from = mail.from.clone();
        if let Some(address) = email::for_mail_server(from.email.as_ref()) {
            from.email = address;
        }
        Ok(Self { transport, from, mails, is_unreachable })
    }

    /// Counts the final result of a mail.
    pub(super) fn count(&self, outcome: Outcome) {
        self.mails.get_or_create(&outcome.label()).inc();
    }

    /// Makes one attempt to send a mail. The `Message-ID` contains the id of the mail, so a
    /// receiver recognises a mail that was sent twice.
    ///
    /// # Errors
    /// When the mail server does not accept the mail, or the mail can't be written to the folder.
    /// The error does not contain the address.
    pub(super) async fn send(&self, id: Uuid, mail: &Mail) -> Result<(), Failure> {
        let to = email::for_mail_server(&mail.to)
            .ok_or_else(|| Failure::permanent("the address is invalid"))?;
        let is_international = !AsRef::<str>::as_ref(&to).is_ascii();
        let message = Message::builder()
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject.as_str())
            .header(ContentType::TEXT_PLAIN)
            .body(mail.text.clone());
        let message = message.map_err(|_| Failure::permanent("the mail can't be composed"))?;
        match &self.transport {
            Transport::Smtp(smtp) => {
                let result = smtp.send(message).await;
                // lettre reports a mail server without SMTPUTF8 as an error of the client.
                if is_international && result.as_ref().is_err_and(SmtpError::is_client) {
                    let text = "the mail server does not accept international addresses (SMTPUTF8)";
                    return Err(Failure::permanent(text));
                }
                // An error with a status code is an answer, so the mail server is reachable.
                let is_unreachable =
                    result.as_ref().is_err_and(|error: &SmtpError| error.status().is_none());
                self.log_reachability(is_unreachable);
                result.map(drop).map_err(Failure::from)
            }
            Transport::Folder(folder) => {
                let result = folder.send(message).await.map(drop);
                result.map_err(|_| Failure::permanent("the mail can't be written to the folder"))
            }
        }
    }
}

impl Mailer {
    /// Logs when the mail server stops answering, and when it answers again.
    fn log_reachability(&self, is_unreachable: bool) {
        match (self.is_unreachable.swap(is_unreachable, Ordering::Relaxed), is_unreachable) {
            (false, true) => tracing::warn!("the mail server of MAIL_URL does not answer"),
            (true, false) => tracing::info!("the mail server answers again"),
            _ => {}
        }
    }
}

/// The reason why an attempt to send a mail failed. The text from the mail server is dropped,
/// because that text may contain the address.
pub(super) struct Failure {
    /// Whether another attempt may succeed.
    pub is_temporary: bool,
    pub text: String,
}

impl Failure {
    /// An attempt that took too long.
    pub(super) fn timeout() -> Self {
        Self { is_temporary: true, text: "the attempt took too long".to_owned() }
    }

    pub(super) fn permanent(text: &str) -> Self {
        Self { is_temporary: false, text: text.to_owned() }
    }
}

impl From<SmtpError> for Failure {
    fn from(error: SmtpError) -> Self {
        let text = match error.status() {
            Some(code) => format!("the mail server responded with {code}"),
            None if error.is_timeout() => "the mail server did not respond in time".to_owned(),
            None => "the mail server is unreachable".to_owned(),
        };
        Self { is_temporary: !error.is_permanent(), text }
    }
}
