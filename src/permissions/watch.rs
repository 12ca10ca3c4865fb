//! `WatchPermissions`: which subjects may be decided about otherwise than before,
//! for callers that cache decisions.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time,
};
use tonic::Status;

use super::{
    changed::{Changed, MAX_SUBJECTS},
    watchers::{News, Watchers},
};
use crate::{
    concurrency::bounded::{Bounded, Open},
    db::Db,
    error::{Error, Result},
    feed::Feed,
    gate::{Admission, Caller},
    ids::TenantId,
    proto::v1::{ErrorReason, WatchPermissionsResponse as Message},
};

/// How often a stream asks whether its caller is admitted still; it asks at each
/// change in the tenant too.
const RECHECK: Duration = Duration::from_secs(1);

/// What watching takes.
pub struct Watch {
    /// Where holders of roles are found, and what changed before.
    pub db: Db,
    /// What changes.
    pub feed: Feed,
    /// Who watches.
    pub watchers: Arc<Watchers>,
    /// The streams that are open: each is told of every change in its tenant.
    pub streams: Arc<Bounded<TenantId>>,
}

/// The messages of a stream.
pub type Messages = BoxStream<'static, Result<Message, Status>>;

impl Watch {
    /// A stream for this caller, that goes on from a consistency token where there
    /// is one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that is not ours, `RESOURCE_EXHAUSTED` when there
    /// are too many streams, UNAVAILABLE while the feed
    /// can't be followed.
    pub async fn open(
        &self,
        caller: &Caller,
        admission: Admission,
        token: &str,
    ) -> Result<Messages> {
        let open = self.streams.open(caller.tenant())?;
        let from = if token.is_empty() { None } else { Some(self.feed.open(token)?.horizon) };
        if !self.feed.refresh().await {
            return Err(interrupted());
        }
        // In this order, so that what changes meanwhile is told twice, not never.
        let news = self.watchers.subscribe(caller.tenant(), &self.db, &self.feed);
        let horizon = self.feed.horizon();
        let mut first = match from {
            None => Message::default(),
            Some(from) => self.since(caller.tenant(), from).await?,
        };
        first.consistency_token = self.feed.token(horizon)?;
        let feed = self.feed.clone();
        let stream = Stream { news, admission, feed, lost: false, _open: open };
        let rest = stream::try_unfold(stream, |mut stream| async move {
            let message = stream.next().await?;
            Ok(Some((message, stream)))
        });
        Ok(stream::once(async { Ok(first) }).chain(rest).boxed())
    }

    /// What changed since a token's horizon.
    async fn since(&self, tenant: TenantId, horizon: u64) -> Result<Message> {
        // One more tells that there are too many to name.
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

/// One caller's stream.
struct Stream {
    news: Receiver<Arc<News>>,
    admission: Admission,
    feed: Feed,
    /// Whether news were lost since the last message.
    lost: bool,
    _open: Open<TenantId>,
}

impl Stream {
    /// The next message; an error ends the stream.
    async fn next(&mut self) -> Result<Message> {
        loop {
            let news = time::timeout(RECHECK, self.news.recv()).await;
            // While memory may not answer, one query per stream would not help.
            if self.feed.is_fresh() {
                self.admission.renew().await?;
            }
            match news {
                Ok(Ok(news)) if news.for_clients || self.lost => return Ok(self.message(&news)),
                Ok(Ok(_)) | Err(_) => {}
                // A slow reader's memory is bounded: it starts anew.
                Ok(Err(RecvError::Lagged(_))) => self.lost = true,
                Ok(Err(RecvError::Closed)) => return Err(interrupted()),
            }
        }
    }

    fn message(&mut self, news: &News) -> Message {
        let consistency_token = news.token.clone();
        let (user_ids, all_subjects) = news.subjects.spelled();
        if std::mem::take(&mut self.lost) {
            return Message { user_ids: Vec::new(), all_subjects: true, consistency_token };
        }
        Message { user_ids, all_subjects, consistency_token }
    }
}

fn interrupted() -> Error {
    let text = "the stream can't go on here: open another, with the last consistency_token";
    Error::refused(ErrorReason::WatchInterrupted, text)
}
