//! The worker that sends the mails of the outbox. The worker retries a mail with exponential
//! backoff until the mail expires (`kind.rs` has the lifetimes) or fails permanently (`mailer.rs`
//! decides which replies of the mail server are permanent failures).

use std::{
    mem,
    net::IpAddr,
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
    link::Purpose,
    link_request::RequestHandler,
    mailer::{Failure, Mailer, Outcome},
    outbox::{self, AddressProof, EmailChanged, LinkRequest, Mail},
    store::{self, ClaimedRow},
    text::Pages,
};
use crate::{
    concurrency::step::bounded,
    config,
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::{SubjectId, TenantId},
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
/// than the lease.
const LEASE: Duration = Duration::from_mins(1);

/// Timeout of an attempt. It also applies when a store or the mail server stops answering without
/// an error.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);

/// Minimum delay between two attempts: the delay after the first attempt.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay between two attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_mins(5);

/// The kinds of rows that the first loop handles: the rows that calls without a token cause. Mails
/// of signed-in users have a separate loop. So a flood of requests without a token, which anybody
/// can send, does not delay these mails.
const PUBLIC_KINDS: &[Kind] = &[
    Kind::ResetRequest,
    Kind::PasswordReset,
    Kind::VerificationRequest,
    Kind::EmailVerification,
    Kind::Registration,
];

/// The kinds of rows that the second loop handles.
const USER_KINDS: &[Kind] = &[Kind::EmailChanged, Kind::EmailChange];

/// Queues mails, and sends them in the background.
pub struct MailQueue {
    db: Db,
    wake_public: Arc<Notify>,
    wake_user: Arc<Notify>,
    stop: watch::Sender<bool>,
    loops: Mutex<Vec<JoinHandle<()>>>,
}

struct Worker {
    db: Db,
    limits: Limits,
    mailer: Mailer,
    request_handler: RequestHandler,
    pages: Pages,
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
        let (wake_public, wake_user) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let pages =
            Pages { reset: mail.reset_page.clone(), verification: mail.verification_page.clone() };
        let worker = Arc::new(Worker {
            db: db.clone(),
            limits: limits.clone(),
            mailer: Mailer::new(mail, registry)?,
            request_handler: RequestHandler { db: db.clone(), limits, pages: pages.clone() },
            pages,
            backlog: Backlog::register(registry),
        });
        let start = |kinds, wake: &Arc<Notify>| {
            tokio::spawn(worker.clone().run(kinds, wake.clone(), stop_receiver.clone()))
        };
        let loops = vec![
            start(PUBLIC_KINDS, &wake_public),
            start(USER_KINDS, &wake_user),
            tokio::spawn(worker.clone().update_gauges(stop_receiver.clone())),
        ];
        let loops = Mutex::new(loops);
        Ok(Arc::new(Self { db, wake_public, wake_user, stop, loops }))
    }

    /// Queues a request for a link with the purpose `PasswordReset` or `EmailVerification`. The
    /// request counts against the limits of `charged_tenant`.
    ///
    /// # Errors
    /// `OVERLOADED` when too many requests wait, or when the share of connections is used up;
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn queue_request(
        &self,
        purpose: Purpose,
        charged_tenant: TenantId,
        request: &LinkRequest,
    ) -> Result<()> {
        let kind = match purpose {
            Purpose::PasswordReset => Kind::ResetRequest,
            _ => Kind::VerificationRequest,
        };
        outbox::queue_request(&self.db, kind, charged_tenant, request).await?;
        self.wake_public.notify_one();
        Ok(())
    }

    /// Queues the mail with the token of a link, in the transaction that stores the link. The
    /// purpose is `Registration` or `EmailChange`. `visitor_ip` is the address of a client without a
    /// token. Call [`MailQueue::send_queued`] after the commit.
    ///
    /// # Errors
    /// `OVERLOADED` when too many such mails wait; UNAVAILABLE when Postgres or the data key is
    /// unavailable.
    pub async fn queue_address_proof(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        purpose: Purpose,
        proof: &AddressProof,
        visitor_ip: Option<IpAddr>,
    ) -> Result<()> {
        let cipher = tx.cipher(tenant)?;
        let network = outbox::network_index(&*self.db.common_cipher()?, visitor_ip);
        outbox::queue(tx, &cipher, Uuid::now_v7(), purpose.proof_kind(), proof, network).await?;
        Ok(())
    }

    /// Queues the notice of a changed email, in the transaction of the change. Call
    /// [`MailQueue::send_queued`] after the commit.
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
        outbox::queue(tx, &cipher, Uuid::now_v7(), Kind::EmailChanged, notice, None).await?;
        Ok(())
    }

    /// Wakes the worker, so that it sends the queued mails now.
    pub fn send_queued(&self) {
        self.wake_public.notify_one();
        self.wake_user.notify_one();
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
                // The loop also stops when the sender of `stop` was dropped.
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

    /// Makes one attempt to handle a row. Returns the outcome of the mail; `None` for a request,
    /// and for a mail that is not sent because of the rate limit.
    async fn attempt(&self, row: &ClaimedRow) -> Result<Option<Outcome>, Failure> {
        let mail = match row.kind {
            Kind::ResetRequest => return self.handle_request(row, Purpose::PasswordReset).await,
            Kind::VerificationRequest => {
                return self.handle_request(row, Purpose::EmailVerification).await;
            }
            Kind::PasswordReset | Kind::EmailVerification => {
                Some(self.open::<Mail>(row, Some(row.tenant)).await?)
            }
            Kind::Registration => self.address_proof_mail(row, Purpose::Registration).await?,
            Kind::EmailChange => self.address_proof_mail(row, Purpose::EmailChange).await?,
            Kind::EmailChanged => self.notice_mail(row).await?,
        };
        let Some(mail) = mail else { return Ok(None) };
        self.mailer.send(row.id, &mail).await?;
        Ok(Some(Outcome::Sent))
    }

    async fn handle_request(
        &self,
        row: &ClaimedRow,
        purpose: Purpose,
    ) -> Result<Option<Outcome>, Failure> {
        let request = self.open::<LinkRequest>(row, None).await?;
        self.request_handler.handle(purpose, row.tenant, row.id, &request).await?;
        Ok(None)
    }

    /// The mail to an address that is not proved yet; `None` above the rate limit.
    async fn address_proof_mail(
        &self,
        row: &ClaimedRow,
        purpose: Purpose,
    ) -> Result<Option<Mail>, Failure> {
        let proof = self.open::<AddressProof>(row, Some(row.tenant)).await?;
        // Only the first attempt is counted: a retry sends the same mail.
        let is_first_attempt = row.attempts == 1;
        if is_first_attempt && proof.check_rate(&self.limits, row.tenant, purpose).await.is_err() {
            log_rate_limit(row, proof.user);
            return Ok(None);
        }
        Ok(Some(proof.to_mail(&self.db, &self.pages, row.tenant, purpose).await?))
    }

    /// The mail with the notice of a changed email; `None` above the rate limit.
    async fn notice_mail(&self, row: &ClaimedRow) -> Result<Option<Mail>, Failure> {
        let notice = self.open::<EmailChanged>(row, Some(row.tenant)).await?;
        // Only the first attempt is counted: a retry sends the same mail.
        let is_first_attempt = row.attempts == 1;
        if is_first_attempt && notice.check_rate(&self.limits, row.tenant).await.is_err() {
            log_rate_limit(row, notice.user);
            return Ok(None);
        }
        Ok(Some(notice.to_mail()))
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
        // The call that queued the row has succeeded, so the row is dropped only if no later
        // attempt can succeed. After any other error, such as a deadlock or a timeout, a later
        // attempt may succeed.
        let is_temporary =
            !matches!(error.reason(), ErrorReason::NotFound | ErrorReason::DataUnreadable);
        Self { is_temporary, text: error.to_string() }
    }
}

fn log_rate_limit(row: &ClaimedRow, user: SubjectId) {
    let (tenant, kind) = (row.tenant, row.kind.as_str());
    tracing::info!(%tenant, %user, kind, "a mail was not sent because of the rate limit");
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
        let help = "Mails and requests for links in the outbox, of all replicas";
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
