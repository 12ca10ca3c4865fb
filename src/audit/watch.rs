//! `WatchEvents`: streams a tenant's events when they are sealed.

use std::{collections::VecDeque, time::Duration};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;
use tonic::Status;

use super::{ChainReceiver, service::Events, store, to_proto::event_to_proto};
use crate::{
    concurrency::{bounded::BoundedPermit, step::bounded},
    db::Db,
    error::{Error, Result},
    gate::{Admission, Caller},
    ids::TenantId,
    proto::v1::{ErrorReason, WatchEventsResponse as Message},
};

/// Interval at which a stream polls for events that another replica sealed, and checks that the
/// gate still admits the caller of the stream.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time after which a stream without a new event sends a message without an event.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Maximum number of events of one read.
const BATCH: i64 = 100;

/// The messages of a stream.
pub type Messages = BoxStream<'static, Result<Message, Status>>;

/// The state of one caller's stream.
struct Stream {
    db: Db,
    chain_receiver: ChainReceiver,
    admission: Admission,
    tenant: TenantId,
    /// The position up to which the stream has read.
    position: i64,
    pending: VecDeque<Message>,
    last_sent_at: Instant,
    _permit: BoundedPermit<TenantId>,
}

/// Opens a stream for a caller: with the events after the position `after`, or with new events
/// only.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when too many streams are open; UNAVAILABLE when Postgres is
/// unavailable.
pub async fn open(
    events: &Events,
    caller: &Caller,
    admission: Admission,
    after: Option<i64>,
) -> Result<Messages> {
    let tenant = caller.tenant();
    let permit = events.streams.acquire(tenant)?;
    let (db, chain_receiver) = (&events.db, events.chain_signal.subscribe());
    let position = match after {
        Some(position) => position,
        None => store::last_position(&mut db.begin_without_cipher(tenant).await?, tenant).await?,
    };
    let mut stream = Stream {
        db: db.clone(),
        chain_receiver,
        admission,
        tenant,
        position,
        pending: VecDeque::new(),
        last_sent_at: Instant::now(),
        _permit: permit,
    };
    stream.pending.push_back(Message { event: None, position });
    let messages = stream::try_unfold(stream, |mut stream| async move {
        let message = stream.next().await?;
        Ok(Some((message, stream)))
    });
    Ok(messages.boxed())
}

impl Stream {
    /// Waits for the next message. An error ends the stream.
    async fn next(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                self.last_sent_at = Instant::now();
                return Ok(message);
            }
            let timeout =
                if bounded(self.read_events()).await? { Duration::ZERO } else { INTERVAL };
            if !self.chain_receiver.wait(timeout).await {
                return Err(watch_interrupted());
            }
            self.admission.recheck().await?;
            if self.pending.is_empty() && self.last_sent_at.elapsed() >= HEARTBEAT {
                self.pending.push_back(Message { event: None, position: self.position });
            }
        }
    }

    /// Reads the next events into `pending`. Returns false when there are no new events.
    async fn read_events(&mut self) -> Result<bool> {
        let mut tx = self.db.begin(self.tenant).await?;
        let rows = store::read_after(&mut tx, self.tenant, self.position, BATCH).await?;
        let Some(last) = rows.last() else { return Ok(false) };
        self.position = last.position;
        let cipher = tx.cipher(self.tenant)?;
        for row in rows {
            let position = row.position;
            self.pending
                .push_back(Message { event: Some(event_to_proto(row, &cipher)?), position });
        }
        Ok(true)
    }
}

fn watch_interrupted() -> Error {
    let text = "this replica cannot continue the stream: open a new stream after the last \
                position that you received";
    Error::refused(ErrorReason::WatchInterrupted, text)
}
