//! The mails that are sent, and what follows a request for a new password: a token, and a
//! mail with it.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use async_channel::Receiver;
use futures_util::{StreamExt, future};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use super::{
    EmailChanged, ResetToken, links,
    mailer::Mailer,
    queue::{MailSlot, Queue, Waiting},
};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    config::{Mail, TOKEN_PLACEHOLDER},
    credentials::password,
    db::Db,
    email,
    error::Result,
    ids::TenantId,
    limits::Limits,
    tenants, users,
};

/// Mails of a kind that are worked on at once.
const AT_ONCE: usize = 8;

/// Somebody has asked for a new password for an account, which there may be or not.
pub struct Request {
    /// In which tenant.
    pub meant: Meant,
    /// Whose share of the queue it takes.
    pub share: TenantId,
    /// Of which email.
    pub email: String,
    /// Who asked.
    pub origin: Origin,
}

/// The tenants that a request means.
pub enum Meant {
    /// The one that it names.
    One(TenantId),
    /// Those that have a user with the email, as for a sign-in: three at most.
    ByEmail {
        /// Whether the address counts only where its user has proved it.
        only_verified: bool,
    },
}

/// Sends mails, apart from the calls that they come from. Requests for new passwords, which
/// anybody may make, keep no mail of a changed email waiting.
pub struct Mails {
    resets: Queue<Request>,
    changes: Queue<EmailChanged>,
    work: Mutex<Vec<JoinHandle<()>>>,
}

struct Worker {
    db: Db,
    limits: Limits,
    mailer: Mailer,
    page: Option<String>,
}

impl Mails {
    /// Starts to work.
    #[must_use]
    pub fn start(db: Db, limits: Limits, mailer: Mailer, mail: &Mail) -> Arc<Self> {
        let (resets, waiting_resets) = Queue::new();
        let (changes, waiting_changes) = Queue::new();
        let worker = Arc::new(Worker { db, limits, mailer, page: mail.reset_page.clone() });
        let teller = worker.clone();
        let work = vec![
            work(waiting_resets, move |request| worker.clone().work_on(request)),
            work(waiting_changes, move |changed| teller.clone().tell(changed)),
        ];
        Arc::new(Self { resets, changes, work: Mutex::new(work) })
    }

    /// Begins with a request.
    ///
    /// # Errors
    /// `OVERLOADED` when too many wait.
    pub fn begin(&self, request: Request) -> Result<()> {
        self.resets.put(self.resets.slot(request.share)?, request)
    }

    /// A slot for the mail to the old address of an email that is about to change.
    ///
    /// # Errors
    /// `OVERLOADED` when too many wait.
    pub fn slot(&self, tenant: TenantId) -> Result<MailSlot> {
        self.changes.slot(tenant)
    }

    /// Tells the old address of a changed email.
    ///
    /// # Errors
    /// `OVERLOADED` when the server has stopped.
    pub fn tell(&self, slot: MailSlot, changed: EmailChanged) -> Result<()> {
        self.changes.put(slot, changed)
    }

    /// Finishes what was begun.
    pub async fn finish(&self) {
        self.resets.close();
        self.changes.close();
        let work = mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner));
        future::join_all(work).await;
    }
}

/// Works on mails as they come, until no more come.
fn work<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    mails: Receiver<Waiting<T>>,
    one: impl Fn(T) -> F + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(mails.for_each_concurrent(AT_ONCE, move |waiting| one(waiting.mail)))
}

impl Worker {
    async fn tell(self: Arc<Self>, changed: EmailChanged) {
        changed.tell(&self.limits, &self.mailer).await;
    }

    async fn work_on(self: Arc<Self>, Request { meant, share, email, origin }: Request) {
        let (key, request_id) = (email::key(&email), &origin.correlation_id);
        let tenants = match self.tenants(meant, &key).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::error!(%error, %request_id, "a password reset was not worked on");
                return;
            }
        };
        for tenant in tenants {
            if let Err(error) = self.work_in(share, tenant, &key, &origin).await {
                let error = format!("{error:#}");
                tracing::error!(error, %tenant, %request_id, "a password reset mail was not sent");
            }
        }
    }

    async fn tenants(&self, meant: Meant, key: &str) -> Result<Vec<TenantId>> {
        let only_verified = match meant {
            Meant::One(tenant) => return Ok(vec![tenant]),
            Meant::ByEmail { only_verified } => only_verified,
        };
        let found = tenants::find_by_email(&self.db, key, only_verified).await?;
        // Where there is none, that somebody asked is recorded all the same.
        Ok(if found.is_empty() { vec![TenantId::UNKNOWN] } else { found })
    }

    async fn work_in(
        &self,
        share: TenantId,
        tenant: TenantId,
        key: &str,
        origin: &Origin,
    ) -> anyhow::Result<()> {
        let candidate = password::candidate(&self.db, share, tenant, key).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = Event::new(EventKind::PasswordResetRequested);
        if let Some(user) = user {
            event = event.target(user.0);
        }
        let actor = Actor::anonymous(origin);
        audit::record_in_share(&self.db, share, tenant, &actor, event).await?;
        let Some(user) = candidate.filter(|found| found.active).map(|found| found.user) else {
            return Ok(());
        };
        if self.limits.mail(tenant, key).await.is_err() {
            tracing::info!(%tenant, %user, "a user has got enough password reset mails");
            return Ok(());
        }
        let (token, text) = ResetToken::new(tenant, user)?;
        let mut tx = self.db.begin(tenant).await?;
        // The lock orders this against a change of the address: either that ends the
        // token, or this sees that.
        let row = users::store::lock(&mut tx, tenant, user).await?;
        if email::key(&row.email) != key {
            return Ok(());
        }
        let tenant_row = tenants::store::get(&mut tx, tenant).await?;
        links::set(&mut tx, &token).await?;
        tx.commit_record().await?;
        let to = row.email.parse().ok().context("the user's email takes no mail")?;
        let subject = format!("A new password for {}", tenant_row.slug);
        self.mailer.send(to, &subject, self.text(&tenant_row.slug, &text)).await
    }

    /// It names the organisation by its slug. Its name is free text of whoever founded it,
    /// and the address may be anybody's.
    fn text(&self, organisation: &str, token: &SecretString) -> String {
        let token = token.expose_secret();
        let way = match &self.page {
            Some(page) => page.replace(TOKEN_PLACEHOLDER, token),
            None => token.to_owned(),
        };
        let minutes = links::LIFE.as_secs() / 60;
        format!(
            "Somebody has asked for a new password for your account at {organisation}.\n\n\
             If it was you, choose one here:\n\n{way}\n\n\
             This works once, and for {minutes} minutes. If it was not you, leave this mail \
             alone: nothing has changed.\n"
        )
    }
}
