//! `WatchPermissions`: reports the subjects whose decisions may have changed, to callers that cache
//! decisions. A stream ends when its caller is no longer admitted (`readmit` in `gate/admit.rs`).

use std::{sync::Arc, time::Duration};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time,
};
use tonic::Status;

use super::{
    changed::{Changed, MAX_SUBJECTS},
    watchers::{ChangeMessage, Watchers},
};
use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits},
    db::Db,
    error::{Error, Result},
    feed::Feed,
    gate::{Admission, Caller},
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
    /// Limits the number of open streams, since each stream receives every change in its tenant.
    pub streams: Arc<BoundedPermits<TenantId>>,
}

/// The messages of one stream.
pub type Messages = BoxStream<'static, Result<Message, Status>>;

impl Watch {
    /// Opens a stream for this caller. With a consistency token, the stream continues where the
    /// token's stream ended.
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
        let permit = self.streams.open(caller.tenant())?;
        let from = if token.is_empty() { None } else { Some(self.feed.open(token)?.horizon) };
        if !self.feed.refresh().await {
            return Err(interrupted());
        }
        // Subscribe before taking the horizon: a change in between is reported twice instead of
        // being lost.
        let news = self.watchers.subscribe(caller.tenant(), &self.db, &self.feed);
        let horizon = self.feed.horizon();
        let mut first = match from {
            None => Message::default(),
            Some(from) => self.since(caller.tenant(), from).await?,
        };
        first.consistency_token = self.feed.token(horizon)?;
        let feed = self.feed.clone();
        let stream = Stream { news, admission, feed, lost_messages: false, _permit: permit };
        let rest = stream::try_unfold(stream, |mut stream| async move {
            let message = stream.next().await?;
            Ok(Some((message, stream)))
        });
        Ok(stream::once(async { Ok(first) }).chain(rest).boxed())
    }

    /// Reads the changes since the horizon of a token.
    async fn since(&self, tenant: TenantId, horizon: u64) -> Result<Message> {
        // Reads one subject more than a message can name. The extra subject shows that there are
        // too many.
        let limit = i64::try_from(MAX_SUBJECTS).unwrap_or(i64::MAX) + 1;
        let since = self.feed.since(&self.db, tenant, horizon, limit).await?;
        let mut changed = Changed::default();
        let too_many = since.changes.len() > MAX_SUBJECTS;
        for (kind, subject) in since.changes {
            changed.add(kind, subject);
        }
        if since.missed || too_many {
            changed.add_all();
        }
        let (user_ids, all_subjects) = changed.subjects(&self.db, tenant).await.spelled();
        Ok(Message { user_ids, all_subjects, ..Message::default() })
    }
}

/// The stream of one caller.
struct Stream {
    news: Receiver<Arc<ChangeMessage>>,
    admission: Admission,
    feed: Feed,
    /// Whether messages were lost since the last message that was sent.
    lost_messages: bool,
    _permit: BoundedPermit<TenantId>,
}

impl Stream {
    /// Waits for the next message. An error ends the stream.
    async fn next(&mut self) -> Result<Message> {
        loop {
            let news = time::timeout(RECHECK_INTERVAL, self.news.recv()).await;
            // When the feed is not fresh, the check would need one query per stream.
            if self.feed.is_fresh() {
                self.admission.renew().await?;
            }
            match news {
                Ok(Ok(news)) if news.for_clients || self.lost_messages => {
                    return Ok(self.message(&news));
                }
                Ok(Ok(_)) | Err(_) => {}
                // The backlog of a slow stream is bounded. After messages were lost, the next
                // message of the stream reports all subjects as changed.
                Ok(Err(RecvError::Lagged(_))) => self.lost_messages = true,
                Ok(Err(RecvError::Closed)) => return Err(interrupted()),
            }
        }
    }

    fn message(&mut self, news: &ChangeMessage) -> Message {
        let consistency_token = news.token.clone();
        let (user_ids, all_subjects) = news.subjects.spelled();
        if std::mem::take(&mut self.lost_messages) {
            return Message { user_ids: Vec::new(), all_subjects: true, consistency_token };
        }
        Message { user_ids, all_subjects, consistency_token }
    }
}

fn interrupted() -> Error {
    let text =
        "the stream can't continue on this replica: open another with the last consistency_token";
    Error::refused(ErrorReason::WatchInterrupted, text)
}
