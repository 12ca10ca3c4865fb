//! Sends mails.

use std::time::Duration;

use anyhow::Context;
use backon::{ExponentialBuilder, Retryable};
use lettre::{
    Address, AsyncFileTransport, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use secrecy::ExposeSecret;

use crate::config::{Mail, MailDestination};

/// How long a server may take, and how often it is asked again: a mail that comes later
/// is of no use.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES: usize = 5;

/// Sends mails from one sender.
pub struct Mailer {
    transport: Transport,
    from: Mailbox,
    sent: Family<Outcome, Counter>,
}

enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(AsyncFileTransport<Tokio1Executor>),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Mailer {
    /// A mailer that connects when it has something to send.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(mail: &Mail, registry: &mut Registry) -> anyhow::Result<Self> {
        let transport = match &mail.post {
            MailDestination::Smtp(url) => {
                let smtp = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret());
                let smtp = smtp.ok().context("MAIL_URL can't be used")?;
                Transport::Smtp(smtp.timeout(Some(TIMEOUT)).build())
            }
            MailDestination::Folder(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("can't create {}", dir.display()))?;
                Transport::Folder(AsyncFileTransport::new(dir))
            }
        };
        let sent = Family::<Outcome, Counter>::default();
        registry.register("tenantry_mails", "Mails, by what became of them", sent.clone());
        for outcome in ["sent", "failed"] {
            drop(sent.get_or_create(&Outcome { outcome }));
        }
        Ok(Self { transport, from: mail.from.clone(), sent })
    }

    /// Sends a mail, and tries again for about half a minute where that may help.
    ///
    /// # Errors
    /// When it was not taken. The error tells nothing of whom it was for.
    pub async fn send(&self, to: Address, subject: &str, text: String) -> anyhow::Result<()> {
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .ok()
            .context("the mail can't be written")?;
        let retry = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_jitter()
            .with_max_times(RETRIES);
        let sent = (|| self.try_send(message.clone())).retry(retry).when(|e| e.may_pass).await;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        self.sent.get_or_create(&Outcome { outcome }).inc();
        sent.map_err(|failure| anyhow::anyhow!(failure.text))
    }

    async fn try_send(&self, message: Message) -> Result<(), Failure> {
        match &self.transport {
            Transport::Smtp(smtp) => smtp.send(message).await.map(drop).map_err(Failure::from),
            Transport::Folder(folder) => {
                let kept = folder.send(message).await;
                let text = || "the folder for mails can't be written".to_owned();
                kept.map(drop).map_err(|_| Failure { may_pass: false, text: text() })
            }
        }
    }
}

/// Why a mail was not taken. What a server says may repeat an address, so it is not
/// kept.
struct Failure {
    may_pass: bool,
    text: String,
}

impl From<lettre::transport::smtp::Error> for Failure {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        let text = match error.status() {
            Some(code) => format!("the mail server answers {code}"),
            None if error.is_timeout() => "the mail server takes too long".to_owned(),
            None => "the mail server can't be talked to".to_owned(),
        };
        Self { may_pass: !error.is_permanent(), text }
    }
}
