//! `WatchEvents`: streams a tenant's events when they are sealed.
//!
//! A restore of the database to an earlier time, and a failover that loses commits, remove events
//! at the end of a trail. Later events then get the positions of the removed events. So a stream
//! continues after a position only if the event there still has the same hash.
//!
//! The first events of a trail are deleted when their retention is over. A stream never leaves out
//! deleted events silently. If events after the position of the request were deleted, the stream
//! ends with an error. Position 0 is an exception: the stream starts at the checkpoint.

use std::{collections::VecDeque, time::Duration};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;
use tonic::Status;

use super::{ChainReceiver, chain, service::Events, store, to_proto::event_to_proto};
use crate::{
    concurrency::step::bounded,
    db::{Db, TenantTx},
    error::{Error, Result},
    gate::{Admission, Caller, StreamPermit},
    ids::TenantId,
    proto::v1::{ErrorReason, WatchEventsRequest, WatchEventsResponse as Message},
};

/// Interval at which a stream polls for events that another replica sealed, and checks that the
/// gate still admits the caller of the stream.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

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
    /// The hash of the event at `position`, as text; empty at position 0.
    hash: String,
    /// The value of [`crate::pg::Postgres::generation`] when this stream last checked that the
    /// trail contains the event at `position`.
    server_generation: u64,
    /// Messages that are not sent yet.
    pending: VecDeque<Message>,
    last_sent_at: Instant,
    /// Released when the stream ends.
    _permit: StreamPermit,
}

/// Opens a stream for a caller. The stream has the events after the position of the request, all
/// events that the trail still has (position 0), or only new events (no position).
///
/// # Errors
/// `FAILED_PRECONDITION` when the trail does not have the event at the position of the request;
/// `RESOURCE_EXHAUSTED` when too many streams are open; UNAVAILABLE when Postgres is unavailable.
pub async fn open(
    events: &Events,
    caller: &Caller,
    admission: Admission,
    request: &WatchEventsRequest,
) -> Result<Messages> {
    let tenant = caller.tenant();
    let permit = events.streams.acquire(caller)?;
    let (db, chain_receiver) = (&events.db, events.chain_signal.subscribe());
    let server_generation = db.postgres().generation();
    let mut tx = db.begin_without_cipher(tenant).await?;
    let position = match request.after_position {
        Some(position) => position,
        None => store::last_position(&mut tx, tenant).await?,
    };
    let (position, hash) = find_start(&mut tx, tenant, position).await?;
    drop(tx);
    if !request.after_hash.is_empty() && request.after_hash != hash {
        return Err(position_of_lost_data());
    }
    let mut stream = Stream {
        db: db.clone(),
        chain_receiver,
        admission,
        tenant,
        position,
        hash: hash.clone(),
        server_generation,
        pending: VecDeque::new(),
        last_sent_at: Instant::now(),
        _permit: permit,
    };
    // The first message tells the client the position at which the stream starts.
    stream.pending.push_back(Message { event: None, position, hash });
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
            // After a read with events, the next read follows immediately: a wait of zero only
            // checks whether the server stops.
            let timeout =
                if bounded(self.read_events()).await? { Duration::ZERO } else { POLL_INTERVAL };
            if !self.chain_receiver.wait(timeout).await {
                return Err(watch_interrupted());
            }
            self.admission.recheck().await?;
            if self.pending.is_empty() && self.last_sent_at.elapsed() >= HEARTBEAT {
                let (position, hash) = (self.position, self.hash.clone());
                self.pending.push_back(Message { event: None, position, hash });
            }
        }
    }

    /// Reads the next events into `pending`. Returns false when there are no new events.
    async fn read_events(&mut self) -> Result<bool> {
        let server_generation = self.db.postgres().generation();
        let mut tx = self.db.begin(self.tenant).await?;
        if server_generation != self.server_generation {
            // Another server may have lost the last events of the trail.
            let (_, hash) = find_start(&mut tx, self.tenant, self.position).await?;
            if hash != self.hash {
                return Err(position_of_lost_data());
            }
            self.server_generation = server_generation;
        }
        let rows = store::read_after(&mut tx, self.tenant, self.position, BATCH).await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(false) };
        if first.position > self.position + 1 {
            // There is a gap. If events that this stream has not sent were deleted, this call
            // returns the error.
            find_start(&mut tx, self.tenant, self.position).await?;
        }
        (self.position, self.hash) = (last.position, chain::encode_hash(&last.hash));
        let cipher = tx.cipher(self.tenant)?;
        for row in rows {
            let (position, hash) = (row.position, chain::encode_hash(&row.hash));
            let event = Some(event_to_proto(row, &cipher)?);
            self.pending.push_back(Message { event, position, hash });
        }
        Ok(true)
    }
}

/// Checks that a stream can continue after `position`. Returns the position after which it starts,
/// and the hash there as text. Position 0 means the start of the trail: the result is the position
/// of the checkpoint, or 0 with an empty hash when no event was deleted.
async fn find_start(tx: &mut TenantTx, tenant: TenantId, position: i64) -> Result<(i64, String)> {
    if let Some(hash) = store::hash_at(tx, tenant, position).await? {
        return Ok((position, chain::encode_hash(&hash)));
    }
    match store::checkpoint(tx, tenant).await? {
        Some(row) if position == 0 || position == row.position => {
            Ok((row.position, chain::encode_hash(&row.hash)))
        }
        Some(row) if position < row.position => {
            Err(Error::PositionTrimmed { oldest_position: row.position + 1 })
        }
        None if position == 0 => Ok((0, String::new())),
        _ => Err(position_of_lost_data()),
    }
}

fn position_of_lost_data() -> Error {
    let text = "the trail does not have the event at this position: a restore or a failover lost \
                it; read the trail anew";
    Error::refused(ErrorReason::PositionOfLostData, text)
}

fn watch_interrupted() -> Error {
    let text = "this replica cannot continue the stream: open a new stream after the last \
                position that you received";
    Error::refused(ErrorReason::WatchInterrupted, text)
}
