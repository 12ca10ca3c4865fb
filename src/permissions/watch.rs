//! `WatchPermissions`: reports the subjects about whom decisions may have changed, to clients that
//! cache decisions. A stream ends when its caller is no longer admitted.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time,
};
use tonic::Status;

use super::{
    changed::{MAX_SUBJECTS, PendingChanges},
    watchers::{ChangeMessage, Watchers},
};
use crate::{
    db::Db,
    error::{Error, Result},
    feed::{Feed, Reached, Revision},
    gate::{Admission, Caller, StreamPermit, StreamPermits},
    ids::TenantId,
    proto::v1::{ErrorReason, WatchPermissionsResponse as Message},
};

/// Interval at which a stream checks that its caller is still admitted. The stream also checks at
/// each change in the tenant.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the streams of `WatchPermissions`.
pub struct Watch {
    /// The database pool, to find the holders of roles and earlier changes.
    pub db: Db,
    /// The change feed of this replica.
    pub feed: Feed,
    /// Distributes the changes to the streams.
    pub watchers: Arc<Watchers>,
    /// Limits the number of open streams, because each stream receives every change in its tenant.
    pub streams: StreamPermits,
}

/// The messages of one stream.
pub type Messages = BoxStream<'static, Result<Message, Status>>;

impl Watch {
    /// Opens a stream for this caller. With a consistency token, the first message reports the
    /// changes since the token.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` for an invalid token, `RESOURCE_EXHAUSTED` when too many streams
    /// are open, and UNAVAILABLE while the feed can't be read.
    pub async fn open(
        &self,
        caller: &Caller,
        admission: Admission,
        token: &str,
    ) -> Result<Messages> {
        let permit = self.streams.acquire(caller)?;
        let revision = if token.is_empty() { None } else { Some(self.feed.open(token)?) };
        if !self.feed.refresh().await {
            return Err(interrupted_error());
        }
        // Subscribe before reading the horizon, so that a change in between is not lost. Such a
        // change is reported twice.
        let receiver = self.watchers.subscribe(caller.tenant(), &self.db, &self.feed);
        let horizon = self.feed.horizon();
        let mut first_message = match revision {
            None => Message::default(),
            Some(revision) => self.changes_since(caller.tenant(), revision).await?,
        };
        first_message.consistency_token = self.feed.token(horizon)?;
        let feed = self.feed.clone();
        let stream = Stream { receiver, admission, feed, lost_messages: false, _permit: permit };
        let further_messages = stream::try_unfold(stream, |mut stream| async move {
            let message = stream.next().await?;
            Ok(Some((message, stream)))
        });
        Ok(stream::once(async { Ok(first_message) }).chain(further_messages).boxed())
    }

    /// The message that reports the changes since a token. When Postgres lacks changes that the
    /// token includes, the client may have cached decisions about them: all subjects are reported.
    async fn changes_since(&self, tenant: TenantId, revision: Revision) -> Result<Message> {
        if self.feed.reached(&self.db, tenant, revision).await? != Reached::Yes {
            return Ok(Message { all_subjects: true, ..Message::default() });
        }
        // Reads one change more than a message can have subjects. The extra change shows that there
        // are too many.
        let limit = i64::try_from(MAX_SUBJECTS).unwrap_or(i64::MAX) + 1;
        let read = self.feed.changes_since(&self.db, tenant, revision.horizon, limit).await?;
        let mut pending = PendingChanges::default();
        let too_many = read.changes.len() > MAX_SUBJECTS;
        for (kind, subject) in read.changes {
            pending.add(kind, subject);
        }
        if read.may_be_incomplete || too_many {
            pending.add_all();
        }
        let (user_ids, all_subjects) = pending.subjects(&self.db, tenant).await.to_message_fields();
        Ok(Message { user_ids, all_subjects, ..Message::default() })
    }
}

/// The stream of one caller.
struct Stream {
    receiver: Receiver<Arc<ChangeMessage>>,
    admission: Admission,
    feed: Feed,
    /// Whether messages were lost since the last message that was sent.
    lost_messages: bool,
    _permit: StreamPermit,
}

impl Stream {
    /// Waits for the next message. An error ends the stream.
    async fn next(&mut self) -> Result<Message> {
        loop {
            let message = time::timeout(RECHECK_INTERVAL, self.receiver.recv()).await;
            // While the feed is not fresh, the check is left out, because each stream would need a
            // query. If that lasts too long, the hub ends the streams.
            if self.feed.is_fresh() {
                self.admission.recheck().await?;
            }
            match message {
                Ok(Ok(message)) if message.for_clients || self.lost_messages => {
                    return Ok(self.response(&message));
                }
                Ok(Ok(_)) | Err(_) => {}
                // The backlog of a slow stream is bounded. After messages were lost, the next
                // message of the stream reports all subjects as changed.
                Ok(Err(RecvError::Lagged(_))) => self.lost_messages = true,
                Ok(Err(RecvError::Closed)) => return Err(interrupted_error()),
            }
        }
    }

    fn response(&mut self, message: &ChangeMessage) -> Message {
        let consistency_token = message.token.clone();
        let (user_ids, all_subjects) = message.subjects.to_message_fields();
        if std::mem::take(&mut self.lost_messages) {
            return Message { user_ids: Vec::new(), all_subjects: true, consistency_token };
        }
        Message { user_ids, all_subjects, consistency_token }
    }
}

fn interrupted_error() -> Error {
    let text = "the stream can't continue on this replica: \
                open another stream with the last consistency_token";
    Error::refused(ErrorReason::WatchInterrupted, text)
}
