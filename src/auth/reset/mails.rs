//! The queue of mails, and what follows a request for a new password: a token, and a
//! mail with it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use async_channel::{Receiver, Sender};
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use super::{super::EmailChanged, ResetToken, store};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    config::{Mail, TOKEN},
    db::Db,
    error::{Error, Result},
    ids::TenantId,
    limits::Limits,
    mail::Mailer,
    proto::v1::ErrorReason,
    tenants,
    users::{self, credentials, email},
};

/// Mails that wait; more are refused.
const WAITING: usize = 1000;

/// Mails that are worked on at once.
const AT_ONCE: usize = 8;

/// Somebody has asked for a new password for an account, which there may be or not.
pub struct Request {
    /// In which tenant.
    pub meant: Meant,
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

/// A mail to send.
enum Work {
    Reset(Request),
    EmailChanged(EmailChanged),
}

/// Sends mails, apart from the calls that they come from.
pub struct Mails {
    waiting: Sender<Work>,
    work: Mutex<Option<JoinHandle<()>>>,
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
        let (waiting, works) = async_channel::bounded(WAITING);
        let worker = Worker { db, limits, mailer, page: mail.reset_page.clone() };
        let work = tokio::spawn(work(worker, works));
        Arc::new(Self { waiting, work: Mutex::new(Some(work)) })
    }

    /// Begins with a request.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait.
    pub fn begin(&self, request: Request) -> Result<()> {
        self.send(Work::Reset(request))
    }

    /// Tells the old address of a changed email.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait.
    pub fn tell(&self, changed: EmailChanged) -> Result<()> {
        self.send(Work::EmailChanged(changed))
    }

    /// Whether so many wait that more are refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    fn send(&self, work: Work) -> Result<()> {
        self.waiting
            .try_send(work)
            .map_err(|_| Error::refused(ErrorReason::Overloaded, "too many mails wait; try again"))
    }

    /// Finishes what was begun.
    pub async fn finish(&self) {
        self.waiting.close();
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work.await.ok();
        }
    }
}

async fn work(worker: Worker, waiting: Receiver<Work>) {
    let worker = &worker;
    let one = |work: Work| async move {
        match work {
            Work::Reset(request) => worker.work_on(request).await,
            Work::EmailChanged(changed) => {
                changed.tell(&worker.limits, &worker.mailer).await;
            }
        }
    };
    waiting.for_each_concurrent(AT_ONCE, one).await;
}

impl Worker {
    async fn work_on(&self, Request { meant, email, origin }: Request) {
        let (key, request_id) = (email::key(&email), &origin.request_id);
        let tenants = match self.tenants(meant, &key).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::error!(%error, %request_id, "a password reset was not worked on");
                return;
            }
        };
        for tenant in tenants {
            if let Err(error) = self.work_in(tenant, &key, &origin).await {
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

    async fn work_in(&self, tenant: TenantId, key: &str, origin: &Origin) -> anyhow::Result<()> {
        let candidate = credentials::candidate(&self.db, tenant, key).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = Event::new(EventKind::PasswordResetRequested);
        if let Some(user) = user {
            event = event.target(user.0);
        }
        audit::record_alone(&self.db, tenant, &Actor::anonymous(origin), event).await?;
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
        let organisation = tenants::store::get(&mut tx, tenant).await?;
        store::set(&mut tx, &token).await?;
        tx.commit_record().await?;
        let to = row.email.parse().ok().context("the user's email takes no mail")?;
        let subject = format!("A new password for {}", organisation.slug);
        self.mailer.send(to, &subject, self.text(&organisation.slug, &text)).await
    }

    /// It names the organisation by its slug. Its name is free text of whoever founded it,
    /// and the address may be anybody's.
    fn text(&self, organisation: &str, token: &SecretString) -> String {
        let token = token.expose_secret();
        let way = match &self.page {
            Some(page) => page.replace(TOKEN, token),
            None => token.to_owned(),
        };
        let minutes = store::LIFE.as_secs() / 60;
        format!(
            "Somebody has asked for a new password for your account at {organisation}.\n\n\
             If it was you, choose one here:\n\n{way}\n\n\
             This works once, and for {minutes} minutes. If it was not you, leave this mail \
             alone: nothing has changed.\n"
        )
    }
}
