//! The background workers of the audit trail: they seal events and send them to Redis.

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::watch, time};

use super::{Refusals, sealer, stream::Outbox};
use crate::{db::Db, error::Error, redis::Redis};

/// Pause between two runs of the sealer. The sum of this pause and the poll interval of the streams
/// is less than one second.
const INTERVAL: Duration = Duration::from_millis(300);

/// Maximum pause between two passes through the outbox when this replica seals nothing.
const SEND_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which counted refusals are recorded.
const COUNT_INTERVAL: Duration = Duration::from_mins(1);

/// Signals that this replica sealed events. The value is true when the server stops.
#[derive(Default, Debug)]
pub struct SealSignal(watch::Sender<bool>);

/// Receives the signals of a [`SealSignal`].
pub struct SealReceiver(watch::Receiver<bool>);

impl SealSignal {
    /// Subscribes to all signals from now on.
    #[must_use]
    pub fn subscribe(&self) -> SealReceiver {
        SealReceiver(self.0.subscribe())
    }

    /// Signals that the server stops.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    fn notify(&self) {
        self.0.send_modify(|_| {});
    }
}

impl SealReceiver {
    /// Waits until events are sealed, at most for `timeout`; false when the server stops.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        let changed = time::timeout(timeout, self.0.changed()).await;
        !matches!(changed, Ok(Err(_))) && !*self.0.borrow()
    }
}

/// Metrics of the audit trail.
#[derive(Default)]
struct Metrics {
    sealed: Counter,
    sent: Counter,
    unsent: Counter,
    blocked: Counter,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let sealed = "Audit events that this replica sealed";
        registry.register("tenantry_audit_sealed", sealed, metrics.sealed.clone());
        let sent = "Audit events that this replica sent to Redis";
        registry.register("tenantry_audit_sent", sent, metrics.sent.clone());
        let unsent = "Failures to send an audit event to Redis";
        registry.register("tenantry_audit_send_failures", unsent, metrics.unsent.clone());
        let blocked = "Times that a tenant's stream in Redis accepted no event, because of the \
                       content of its key";
        registry.register("tenantry_audit_streams_blocked", blocked, metrics.blocked.clone());
        metrics
    }
}

/// Starts the workers. They stop when the pool is closed. Each tenant's Redis stream keeps
/// about `stream_length` entries; with 0 there are no streams.
pub fn start_workers(
    db: &Db,
    redis: &Redis,
    stream_length: u32,
    refusals: Arc<Refusals>,
    registry: &mut Registry,
) -> Arc<SealSignal> {
    let seals = Arc::new(SealSignal::default());
    let metrics = Metrics::register(registry);
    let outbox = Outbox::new(db.clone(), redis.clone(), stream_length);
    tokio::spawn(seal(db.clone(), seals.clone(), metrics.sealed.clone()));
    tokio::spawn(send(db.clone(), outbox, stream_length > 0, seals.subscribe(), metrics));
    tokio::spawn(record_counts(db.clone(), refusals));
    seals
}

async fn seal(db: Db, seals: Arc<SealSignal>, sealed: Counter) {
    while !db.is_closed() {
        let count = sealer::seal(&db).await.unwrap_or_else(|error| log_failure(&error));
        if count > 0 {
            sealed.inc_by(u64::try_from(count).unwrap_or_default());
            seals.notify();
        }
        if count < sealer::BATCH {
            time::sleep(INTERVAL).await;
        }
    }
}

async fn send(db: Db, mut outbox: Outbox, is_on: bool, mut seals: SealReceiver, metrics: Metrics) {
    while !db.is_closed() {
        let progress = outbox.publish().await.unwrap_or_else(|error| log_failure(&error));
        if is_on {
            metrics.sent.inc_by(u64::try_from(progress.done).unwrap_or_default());
        }
        metrics.unsent.inc_by(u64::from(progress.failed));
        metrics.blocked.inc_by(u64::try_from(progress.blocked).unwrap_or_default());
        if progress.failed {
            time::sleep(SEND_INTERVAL).await;
        } else if progress.done == 0
            && !progress.should_continue
            && !seals.wait(SEND_INTERVAL).await
        {
            return;
        }
    }
}

async fn record_counts(db: Db, refusals: Arc<Refusals>) {
    while !db.is_closed() {
        time::sleep(COUNT_INTERVAL).await;
        refusals.flush().await.unwrap_or_else(|error| log_failure(&error));
    }
}

/// Logs a failure. No data is lost: events wait in Postgres, and counts wait in memory.
fn log_failure<T: Default>(error: &Error) -> T {
    tracing::warn!(%error, "a worker of the audit trail failed and tries again");
    T::default()
}
