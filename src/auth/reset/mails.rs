//! What follows a request for a new password: a token, and a mail with it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use async_channel::{Receiver, Sender};
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use super::{ResetToken, store};
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

/// Requests that wait; more are refused.
const WAITING: usize = 1000;

/// Requests that are worked on at once.
const AT_ONCE: usize = 8;

/// Somebody has asked for a new password for an account, which there may be or not.
pub struct Request {
    /// In which tenant.
    pub tenant: TenantId,
    /// Of which email.
    pub email: String,
    /// Who asked.
    pub origin: Origin,
}

/// Works on requests, apart from the calls that they come from.
pub struct Resets {
    waiting: Sender<Request>,
    work: Mutex<Option<JoinHandle<()>>>,
}

struct Worker {
    db: Db,
    limits: Limits,
    mailer: Mailer,
    page: Option<String>,
}

impl Resets {
    /// Starts to work.
    #[must_use]
    pub fn start(db: Db, limits: Limits, mailer: Mailer, mail: &Mail) -> Arc<Self> {
        let (waiting, requests) = async_channel::bounded(WAITING);
        let worker = Worker { db, limits, mailer, page: mail.reset_page.clone() };
        let work = tokio::spawn(work(worker, requests));
        Arc::new(Self { waiting, work: Mutex::new(Some(work)) })
    }

    /// Begins with a request.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait.
    pub fn begin(&self, request: Request) -> Result<()> {
        self.waiting
            .try_send(request)
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

async fn work(worker: Worker, requests: Receiver<Request>) {
    let worker = &worker;
    let one = |request: Request| async move {
        let (tenant, request_id) = (request.tenant, request.origin.request_id.clone());
        if let Err(error) = worker.work_on(request).await {
            let error = format!("{error:#}");
            tracing::error!(error, %tenant, %request_id, "a password reset mail was not sent");
        }
    };
    requests.for_each_concurrent(AT_ONCE, one).await;
}

impl Worker {
    async fn work_on(&self, Request { tenant, email, origin }: Request) -> anyhow::Result<()> {
        let key = email::key(&email);
        let candidate = credentials::candidate(&self.db, tenant, &key).await?;
        let user = candidate.as_ref().map(|candidate| candidate.user);
        let mut event = Event::new(EventKind::PasswordResetRequested);
        if let Some(user) = user {
            event = event.target(user.0);
        }
        audit::record_alone(&self.db, tenant, &Actor::anonymous(&origin), event).await?;
        let Some(user) = candidate.filter(|found| found.active).map(|found| found.user) else {
            return Ok(());
        };
        if self.limits.mail(tenant, &key).await.is_err() {
            tracing::info!(%tenant, %user, "a user has got enough password reset mails");
            return Ok(());
        }
        let (token, text) = ResetToken::new(tenant, user)?;
        let mut tx = self.db.begin(tenant).await?;
        let row = users::store::get(&mut tx, tenant, user).await?;
        let organisation = tenants::store::get(&mut tx, tenant).await?;
        store::set(&mut tx, &token).await?;
        tx.commit_record().await?;
        let to = row.email.parse().ok().context("the user's email takes no mail")?;
        let subject = format!("A new password for {}", organisation.name);
        self.mailer.send(to, &subject, self.text(&organisation.name, &text)).await
    }

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
