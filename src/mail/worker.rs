//! The worker that sends the mails of the outbox. The worker retries a mail with exponential
//! backoff until the mail expires (`kind.rs` has the lifetimes) or fails permanently (`mailer.rs`
//! decides which replies of the mail server are permanent failures).

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    kind::Kind,
    mailer::{Failure, Mailer, Outcome},
    outbox::{self, EmailChanged, Mail, ResetRequest},
    password_reset::ResetHandler,
    store::{self, ClaimedRow},
};
use crate::{
    concurrency::step::bounded,
    config,
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
    limits::Limits,
    proto::v1::ErrorReason,
    telemetry::FailureLog,
};

/// Maximum number of rows that one loop handles concurrently.
const MAX_CONCURRENT_ROWS: usize = 8;

/// Maximum number of rows of one tenant that one query claims.
const MAX_CLAIMED_PER_TENANT: i64 = 4;

/// Interval between two queries of the outbox. The queries find the rows that another replica
/// queued and the rows that are due for a retry.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between two updates of the gauges.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(10);

/// Time after which a claimed row is due again. An attempt and the update of its row take less time
/// than this.
const LEASE: Duration = Duration::from_mins(1);

/// Timeout of an attempt, also if a store or the mail server stops to answer without an error.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);

/// Minimum delay between two attempts: the delay after the first attempt.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay between two attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_mins(5);

/// The kinds of rows that the first loop handles. Notices have a separate loop, so a flood of reset
/// requests, which anybody can send, does not delay notices.
const RESET_KINDS: &[Kind] = &[Kind::ResetRequest, Kind::PasswordReset];

/// The kinds of rows that the second loop handles.
const NOTICE_KINDS: &[Kind] = &[Kind::EmailChanged];

/// Queues mails, and sends them in the background.
pub struct MailQueue {
    db: Db,
    wake_resets: Arc<Notify>,
    wake_notices: Arc<Notify>,
    stop: watch::Sender<bool>,
    loops: Mutex<Vec<JoinHandle<()>>>,
}

struct Worker {
    db: Db,
    limits: Limits,
    mailer: Mailer,
    reset_handler: ResetHandler,
    backlog: Backlog,
}

/// Gauges of the outbox.
#[derive(Default)]
struct Backlog {
    waiting_rows: Gauge,
    oldest_age_seconds: Gauge<f64, AtomicU64>,
}

impl MailQueue {
    /// Starts the worker.
    ///
    /// # Errors
    /// When the folder for mails can't be created.
    pub fn start(
        db: Db,
        limits: Limits,
        mail: &config::Mail,
        registry: &mut Registry,
    ) -> anyhow::Result<Arc<Self>> {
        let (stop, stop_receiver) = watch::channel(false);
        let (wake_resets, wake_notices) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let worker = Arc::new(Worker {
            db: db.clone(),
            limits: limits.clone(),
            mailer: Mailer::new(mail, registry)?,
            reset_handler: ResetHandler {
                db: db.clone(),
                limits,
                page_url: mail.reset_page.clone(),
            },
            backlog: Backlog::register(registry),
        });
        let start = |kinds, wake: &Arc<Notify>| {
            tokio::spawn(worker.clone().run(kinds, wake.clone(), stop_receiver.clone()))
        };
        let loops = vec![
            start(RESET_KINDS, &wake_resets),
            start(NOTICE_KINDS, &wake_notices),
            tokio::spawn(worker.clone().update_gauges(stop_receiver.clone())),
        ];
        let loops = Mutex::new(loops);
        Ok(Arc::new(Self { db, wake_resets, wake_notices, stop, loops }))
    }

    /// Queues a request for a password reset. The request counts against the limits of
    /// `charged_tenant`.
    ///
    /// # Errors
    /// `OVERLOADED` when too many requests wait, or when the share of connections is used up;
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn queue_reset_request(
        &self,
        charged_tenant: TenantId,
        request: &ResetRequest,
    ) -> Result<()> {
        outbox::queue_request(&self.db, charged_tenant, request).await?;
        self.wake_resets.notify_one();
        Ok(())
    }

    /// Queues the notice of a changed email, in the transaction of the change. Call
    /// [`MailQueue::send_notices`] after the commit.
    ///
    /// # Errors
    /// `OVERLOADED` when too many notices wait; UNAVAILABLE when Postgres or the data key is
    /// unavailable.
    pub async fn queue_email_changed(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        notice: &EmailChanged,
    ) -> Result<()> {
        let cipher = tx.cipher(tenant)?;
        outbox::queue(tx, &cipher, Uuid::now_v7(), Kind::EmailChanged, notice).await?;
        Ok(())
    }

    /// Wakes the worker, so that it sends the queued notices now.
    pub fn send_notices(&self) {
        self.wake_notices.notify_one();
    }

    /// Waits until the worker has sent the mails that are due, and has stopped. Other mails stay in
    /// the outbox.
    pub async fn send_due_and_stop(&self) {
        self.stop.send_replace(true);
        let loops = mem::take(&mut *self.loops.lock().unwrap_or_else(PoisonError::into_inner));
        future::join_all(loops).await;
    }
}

impl Worker {
    /// Handles rows of these kinds until the server stops and no row is due.
    async fn run(
        self: Arc<Self>,
        kinds: &'static [Kind],
        wake: Arc<Notify>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut tasks = JoinSet::new();
        let mut log = FailureLog::new(
            "the outbox of mails can't be read; the worker tries again",
            "the outbox of mails is read again",
        );
        loop {
            if tasks.len() >= MAX_CONCURRENT_ROWS {
                tasks.join_next().await;
            }
            let claimed = self.claim(kinds, MAX_CONCURRENT_ROWS - tasks.len()).await;
            let batch = log.record(claimed).unwrap_or_default();
            if batch.is_empty() {
                // The loop also stops when the sender was dropped.
                let is_stopping = *stop.borrow() || stop.has_changed().is_err();
                if is_stopping && tasks.is_empty() {
                    return;
                }
                tokio::select! {
                    () = wake.notified() => {}
                    () = sleep(POLL_INTERVAL) => {}
                    _ = stop.changed(), if !is_stopping => {}
                    Some(_) = tasks.join_next() => {}
                }
            }
            for row in batch {
                tasks.spawn(self.clone().handle(row));
            }
        }
    }

    async fn claim(&self, kinds: &[Kind], limit: usize) -> Result<Vec<ClaimedRow>> {
        let limit = i64::try_from(limit).unwrap_or_default();
        bounded(store::claim(&self.db, kinds, limit, MAX_CLAIMED_PER_TENANT, LEASE)).await
    }

    /// Updates the gauges until the server stops.
    async fn update_gauges(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            match bounded(store::backlog(&self.db)).await {
                Ok((waiting_rows, oldest_age_seconds)) => {
                    self.backlog.waiting_rows.set(waiting_rows);
                    self.backlog.oldest_age_seconds.set(oldest_age_seconds);
                }
                Err(error) => tracing::debug!(%error, "the backlog of mails can't be measured"),
            }
            if timeout(BACKLOG_INTERVAL, stop.changed()).await.is_ok() {
                return;
            }
        }
    }

    /// Handles a row. Then removes the row or schedules the next attempt.
    async fn handle(self: Arc<Self>, row: ClaimedRow) {
        let (tenant, mail, kind) = (row.tenant, row.id, row.kind.as_str());
        let outcome = if row.is_expired {
            tracing::error!(%tenant, %mail, kind, "a mail expired before it was sent");
            Some(Outcome::Expired)
        } else {
            let attempt = timeout(ATTEMPT_TIMEOUT, self.attempt(&row)).await;
            match attempt.unwrap_or_else(|_| Err(Failure::timeout())) {
                Ok(outcome) => outcome,
                Err(failure) if failure.is_temporary => {
                    let (attempts, reason) = (row.attempts, failure.text);
                    tracing::warn!(%tenant, %mail, kind, attempts, reason, "a mail is retried");
                    let delay = retry_delay(row.attempts);
                    let result = bounded(store::retry(&self.db, &row, delay)).await;
                    // If the query fails, the row is due again when its lease expires.
                    result.unwrap_or_else(|error| {
                        tracing::warn!(%error, %mail, "a retry was not scheduled");
                    });
                    return;
                }
                Err(failure) => {
                    let reason = failure.text;
                    tracing::error!(%tenant, %mail, kind, reason, "a mail failed permanently");
                    Some(Outcome::Failed)
                }
            }
        };
        if let Some(outcome) = outcome {
            self.mailer.count(outcome);
        }
        if let Err(error) = bounded(store::remove(&self.db, tenant, row.id)).await {
            tracing::warn!(%error, %mail, "a handled mail can't be removed from the outbox");
        }
    }

    /// Makes one attempt to handle a row. Returns the outcome of the mail; `None` for a reset
    /// request, and for a notice that is not sent because of the rate limit.
    async fn attempt(&self, row: &ClaimedRow) -> Result<Option<Outcome>, Failure> {
        if row.kind == Kind::ResetRequest {
            let request = self.open::<ResetRequest>(row, None).await?;
            self.reset_handler.handle(row.tenant, row.id, &request).await.map_err(Failure::from)?;
            return Ok(None);
        }
        let mail = if row.kind == Kind::PasswordReset {
            self.open::<Mail>(row, Some(row.tenant)).await?
        } else {
            let notice = self.open::<EmailChanged>(row, Some(row.tenant)).await?;
            let is_first = row.attempts == 1;
            if is_first && notice.check_rate(&self.limits, row.tenant).await.is_err() {
                let (tenant, user) = (row.tenant, notice.user);
                tracing::info!(%tenant, %user, "a notice was not sent because of the rate limit");
                return Ok(None);
            }
            notice.to_mail()
        };
        self.mailer.send(row.id, &mail).await?;
        Ok(Some(Outcome::Sent))
    }

    /// Decrypts the content of a row, with the key of `tenant`, or with the common key for `None`.
    async fn open<T: DeserializeOwned>(
        &self,
        row: &ClaimedRow,
        tenant: Option<TenantId>,
    ) -> Result<T, Failure> {
        let cipher = match tenant {
            Some(tenant) => self.db.cipher(tenant).await?,
            None => Some(self.db.common_cipher()?),
        };
        let cipher = cipher.ok_or_else(|| Failure::permanent("the tenant was deleted"))?;
        Ok(cipher.open_json(outbox::seal_context(&row.id), &row.content)?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // The client was told that the row was accepted, so the row is dropped only if no later
        // attempt can succeed. After any other error, such as a deadlock or a timeout, a later
        // attempt may succeed.
        let is_temporary =
            !matches!(error.reason(), ErrorReason::NotFound | ErrorReason::DataUnreadable);
        Self { is_temporary, text: error.to_string() }
    }
}

/// The delay after attempt number `attempts`.
fn retry_delay(attempts: i32) -> Duration {
    let delays = ExponentialBuilder::default()
        .with_min_delay(MIN_RETRY_DELAY)
        .with_max_delay(MAX_RETRY_DELAY)
        .with_jitter()
        .without_max_times();
    let earlier_retries = usize::try_from(attempts - 1).unwrap_or_default();
    delays.build().nth(earlier_retries).unwrap_or(MAX_RETRY_DELAY)
}

impl Backlog {
    fn register(registry: &mut Registry) -> Self {
        let backlog = Self::default();
        let help = "Mails and requests for password resets in the outbox, of all replicas";
        registry.register("tenantry_mails_waiting", help, backlog.waiting_rows.clone());
        let help = "Age of the oldest row in the outbox of mails, in seconds";
        registry.register(
            "tenantry_mails_oldest_seconds",
            help,
            backlog.oldest_age_seconds.clone(),
        );
        backlog
    }
}
