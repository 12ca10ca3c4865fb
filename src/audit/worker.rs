//! The background workers of the audit trail: they seal events and send them to Redis.

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::watch, time};

use super::{Refusals, backlog::BacklogGauges, sealer, stream::Outbox};
use crate::{concurrency::step::bounded, db::Db, redis::Redis, telemetry::FailureLog};

/// Pause of the sealer after a run that sealed less than a full batch. This pause and the poll
/// interval of `WatchEvents` together are less than one second, so a client gets an event within
/// about one second.
const SEAL_INTERVAL: Duration = Duration::from_millis(300);

/// Pause before the next pass through the outbox after a failure of Redis. It is also the maximum
/// pause after a pass that removed no events: this pause ends earlier when this replica seals
/// events.
const SEND_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which the counts of refusals are recorded.
const COUNT_INTERVAL: Duration = Duration::from_mins(1);

/// Signals that this replica sealed events, and that the server stops. The value of the channel is
/// true when the server stops.
#[derive(Default, Debug)]
pub struct ChainSignal(watch::Sender<bool>);

/// Receives the signals of a [`ChainSignal`].
pub struct ChainReceiver(watch::Receiver<bool>);

impl ChainSignal {
    /// Creates a receiver of all signals from now on.
    #[must_use]
    pub fn subscribe(&self) -> ChainReceiver {
        ChainReceiver(self.0.subscribe())
    }

    /// Signals that the server stops.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Signals that this replica sealed events.
    fn notify(&self) {
        self.0.send_modify(|_| {});
    }
}

impl ChainReceiver {
    /// Waits until this replica seals events, at most for `timeout`. Returns false when the server
    /// stops, otherwise true, also after the timeout.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        let changed = time::timeout(timeout, self.0.changed()).await;
        let sender_was_dropped = matches!(changed, Ok(Err(_)));
        !sender_was_dropped && !*self.0.borrow()
    }
}

/// Metrics of the audit trail.
#[derive(Default)]
struct Metrics {
    sealed: Counter,
    sent: Counter,
    send_failures: Counter,
    blocked_streams: Counter,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Audit events that this replica sealed";
        registry.register("tenantry_audit_sealed", help, metrics.sealed.clone());
        let help = "Audit events that this replica sent to Redis";
        registry.register("tenantry_audit_sent", help, metrics.sent.clone());
        let help = "Failures to send an audit event to Redis";
        registry.register("tenantry_audit_send_failures", help, metrics.send_failures.clone());
        let help = "Times that a tenant's stream in Redis accepted no event, because of the \
                    content of its key";
        registry.register("tenantry_audit_streams_blocked", help, metrics.blocked_streams.clone());
        metrics
    }
}

/// Starts the workers. They stop when the connection pool is closed. Each tenant's Redis stream
/// keeps about `stream_length` entries. If `stream_length` is 0, no events are sent.
pub fn start_workers(
    db: &Db,
    redis: &Redis,
    stream_length: u32,
    refusals: Arc<Refusals>,
    registry: &mut Registry,
) -> Arc<ChainSignal> {
    let chain_signal = Arc::new(ChainSignal::default());
    let metrics = Metrics::register(registry);
    let outbox = Outbox::new(db.clone(), redis.clone(), stream_length);
    tokio::spawn(seal(db.clone(), chain_signal.clone(), metrics.sealed.clone()));
    let (has_streams, chain_receiver) = (stream_length > 0, chain_signal.subscribe());
    tokio::spawn(send(db.clone(), outbox, has_streams, chain_receiver, metrics));
    tokio::spawn(record_counts(db.clone(), refusals));
    tokio::spawn(BacklogGauges::register(registry).keep_current(db.clone()));
    chain_signal
}

async fn seal(db: Db, chain_signal: Arc<ChainSignal>, sealed: Counter) {
    // No data is lost: the events wait in Postgres.
    let mut log = FailureLog::new(
        "audit events can't be added to the hash chain; the worker tries again",
        "audit events are added to the hash chain again",
    );
    while !db.is_closed() {
        let count = log.record(bounded(sealer::seal(&db)).await).unwrap_or_default();
        if count > 0 {
            sealed.inc_by(u64::try_from(count).unwrap_or_default());
            chain_signal.notify();
        }
        if count < sealer::BATCH {
            time::sleep(SEAL_INTERVAL).await;
        }
    }
}

async fn send(
    db: Db,
    mut outbox: Outbox,
    has_streams: bool,
    mut chain_receiver: ChainReceiver,
    metrics: Metrics,
) {
    // No data is lost: the events wait in Postgres.
    let mut log = FailureLog::new(
        "the audit events to send can't be read; the worker tries again",
        "the audit events to send are read again",
    );
    while !db.is_closed() {
        let progress = log.record(bounded(outbox.publish()).await).unwrap_or_default();
        if has_streams {
            metrics.sent.inc_by(u64::try_from(progress.removed).unwrap_or_default());
        }
        metrics.send_failures.inc_by(u64::from(progress.has_failed));
        metrics.blocked_streams.inc_by(u64::try_from(progress.blocked_streams).unwrap_or_default());
        if progress.has_failed {
            time::sleep(SEND_INTERVAL).await;
        } else if progress.removed == 0
            && !progress.should_continue
            && !chain_receiver.wait(SEND_INTERVAL).await
        {
            return;
        }
    }
}

async fn record_counts(db: Db, refusals: Arc<Refusals>) {
    // No data is lost: the counts wait in memory.
    let mut log = FailureLog::new(
        "counted refusals can't be recorded; the worker tries again",
        "counted refusals are recorded again",
    );
    while !db.is_closed() {
        time::sleep(COUNT_INTERVAL).await;
        log.record(refusals.flush().await);
    }
}
