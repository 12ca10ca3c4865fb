//! Bounds the memory of responses that clients do not read.
//!
//! A client decides with its flow-control windows (RFC 9113, section 5.2) when it reads a response.
//! Without a bound, a client with one valid token could fill the memory: it makes many calls and
//! reads nothing. So each response that is not sent yet holds permits of its owner's share, one for
//! each KiB. After [`SEND_TIMEOUT`] the rest of the response is dropped.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::{task::AbortHandle, time};
use tonic::{Status, body::Body};

use super::progress::ShareOwner;
use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits},
    error,
    proto::v1::ErrorReason,
};

/// Maximum size of all responses that are not sent yet, in KiB. One owner has half of it.
const MAX_UNSENT_KIB: usize = 128 * 1024;

/// Maximum time for sending a response.
const SEND_TIMEOUT: Duration = Duration::from_mins(1);

/// Maximum size of a response that needs no permits, in bytes. It is no larger than the other data
/// of its stream.
const SMALL: usize = 1024;

/// Maximum size of the parts in which a response is given to the connection, in bytes. The
/// connection buffers at most one part more than the client's window allows.
const PART: usize = 16 * 1024;

/// Counts the responses that are not sent yet.
pub(super) struct UnsentResponses {
    permits: Arc<BoundedPermits<ShareOwner>>,
    send_timeout: Duration,
    metrics: Metrics,
}

#[derive(Clone)]
struct Metrics {
    unsent_kib: Gauge,
    expired: Counter,
}

impl UnsentResponses {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics { unsent_kib: Gauge::default(), expired: Counter::default() };
        let help = "Size of the responses that clients have not read yet, in KiB";
        registry.register("tenantry_responses_unsent_kib", help, metrics.unsent_kib.clone());
        let help = "Responses that were dropped because the client did not read them in time";
        registry.register("tenantry_responses_expired", help, metrics.expired.clone());
        let permits = BoundedPermits::new(MAX_UNSENT_KIB, MAX_UNSENT_KIB / 2);
        Self { permits, send_timeout: SEND_TIMEOUT, metrics }
    }

    /// Checks before a write that the owner's share is not used up. The response of a committed
    /// write must be sent, because the client could not tell a refusal from a write that failed.
    ///
    /// # Errors
    /// Returns `OVERLOADED` when the owner's share is used up.
    pub(super) fn check_before_write(&self, owner: ShareOwner) -> Result<(), Status> {
        self.permits.check(owner).map_err(|_| share_used_up())
    }

    /// Adds a unary call's response to the responses of its owner that are not sent yet. The
    /// response of a write is always added: [`Self::check_before_write`] came before.
    ///
    /// # Errors
    /// Returns `OVERLOADED` when the owner's share is used up.
    pub(super) async fn add(
        &self,
        response: Response<Body>,
        owner: ShareOwner,
        is_write: bool,
    ) -> Result<Response<Body>, Status> {
        if response.body().is_end_stream() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let (message, trailers) = collect(body).await?;
        if message.len() <= SMALL {
            return Ok(Response::from_parts(head, body_of(message, trailers)));
        }
        let kib = message.len().div_ceil(1024);
        let permit = if is_write {
            self.permits.acquire_beyond_limits(owner, kib)
        } else {
            self.permits.acquire_many(owner, kib).map_err(|_| share_used_up())?
        };
        let content = Content { message, trailers, _permit: UnsentPermit::new(permit, kib, self) };
        let body = UnsentBody::new(content, self.send_timeout, self.metrics.expired.clone());
        Ok(Response::from_parts(head, Body::new(body)))
    }
}

fn share_used_up() -> Status {
    let text = "too many responses were not read yet; read them, or try again later";
    error::status(ErrorReason::Overloaded, text)
}

/// The message and the trailers of a unary call's response.
///
/// # Errors
/// Returns the status of a response that can't be encoded.
pub(super) async fn collect(body: Body) -> Result<(Bytes, Option<HeaderMap>), Status> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}

/// A body with a message and trailers. It has no `content-length`, like the other responses of
/// gRPC.
pub(super) fn body_of(message: Bytes, trailers: Option<HeaderMap>) -> Body {
    let frames = [Some(Frame::data(message)), trailers.map(Frame::trailers)];
    Body::new(StreamBody::new(stream::iter(frames.into_iter().flatten().map(Ok::<_, Infallible>))))
}

/// The permits of a response, and its part of the metric.
struct UnsentPermit {
    kib: i64,
    unsent_kib: Gauge,
    _permit: BoundedPermit<ShareOwner>,
}

impl UnsentPermit {
    fn new(permit: BoundedPermit<ShareOwner>, kib: usize, responses: &UnsentResponses) -> Self {
        let kib = i64::try_from(kib).unwrap_or(i64::MAX);
        let unsent_kib = responses.metrics.unsent_kib.clone();
        unsent_kib.inc_by(kib);
        Self { kib, unsent_kib, _permit: permit }
    }
}

impl Drop for UnsentPermit {
    fn drop(&mut self) {
        self.unsent_kib.dec_by(self.kib);
    }
}

/// The part of a response that is not sent yet.
struct Content {
    message: Bytes,
    trailers: Option<HeaderMap>,
    _permit: UnsentPermit,
}

enum State {
    Unsent(Content),
    /// Only the trailers are left.
    Sent(Option<HeaderMap>),
    /// The rest was dropped after [`SEND_TIMEOUT`].
    Expired,
}

/// The body of a response that holds permits until its last part is given to the connection.
///
/// A connection asks for the next part only when the client's window has room. So a separate task
/// drops the rest of a response that the client does not read.
struct UnsentBody {
    state: Arc<Mutex<State>>,
    timeout: AbortHandle,
}

impl UnsentBody {
    fn new(content: Content, send_timeout: Duration, expired: Counter) -> Self {
        let state = Arc::new(Mutex::new(State::Unsent(content)));
        let shared_state = state.clone();
        let timeout = tokio::spawn(async move {
            time::sleep(send_timeout).await;
            *lock(&shared_state) = State::Expired;
            expired.inc();
        });
        Self { state, timeout: timeout.abort_handle() }
    }
}

impl Drop for UnsentBody {
    fn drop(&mut self) {
        self.timeout.abort();
        // The aborted task drops its handle of the state later.
        *lock(&self.state) = State::Sent(None);
    }
}

impl HttpBody for UnsentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = lock(&self.state);
        let frame = match &mut *state {
            State::Unsent(content) => {
                let length = content.message.len().min(PART);
                // A copy, because a slice would keep the whole message in memory.
                let part = Bytes::copy_from_slice(&content.message.split_to(length));
                if content.message.is_empty() {
                    self.timeout.abort();
                    *state = State::Sent(content.trailers.take());
                }
                Some(Frame::data(part))
            }
            State::Sent(trailers) => trailers.take().map(Frame::trailers),
            State::Expired => {
                *state = State::Sent(None);
                let status = error::status(
                    ErrorReason::DeadlineExceeded,
                    "the client did not read the response in time",
                );
                let mut trailers = HeaderMap::new();
                let is_added = status.add_header(&mut trailers).is_ok();
                is_added.then(|| Frame::trailers(trailers))
            }
        };
        Poll::Ready(frame.map(Ok))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;

    fn response(length: usize) -> Response<Body> {
        Response::new(body_of(vec![7; length].into(), Some(HeaderMap::new())))
    }

    fn owner() -> ShareOwner {
        ShareOwner::Tenant(TenantId::new())
    }

    async fn next_frame(body: &mut Body) -> Option<Frame<Bytes>> {
        body.frame().await.transpose().expect("the body has no errors")
    }

    /// N21: a response is complete, and its permits are released with its last part.
    #[tokio::test]
    async fn a_response_is_sent_in_parts_and_then_holds_no_permits() {
        let responses = UnsentResponses::new(&mut Registry::default());
        let length = 3 * PART + 5;
        let added =
            responses.add(response(length), owner(), false).await.expect("the share is unused");
        let mut body = added.into_body();
        assert_eq!(responses.metrics.unsent_kib.get(), 49);
        let mut sent = 0;
        while sent < length {
            let frame = next_frame(&mut body).await.expect("a part");
            let part = frame.into_data().expect("data");
            assert!(part.len() <= PART);
            sent += part.len();
        }
        assert_eq!((sent, responses.metrics.unsent_kib.get()), (length, 0));
        assert!(next_frame(&mut body).await.expect("trailers").is_trailers());
        assert!(next_frame(&mut body).await.is_none());
    }

    /// N21: one owner holds half of the memory; the permits return when the client goes away.
    #[tokio::test]
    async fn an_owner_that_reads_nothing_has_half_of_the_memory() {
        let responses = UnsentResponses::new(&mut Registry::default());
        let (slow, other) = (owner(), owner());
        let mut unread = Vec::new();
        let refusal = loop {
            match responses.add(response(3 * 1024 * 1024), slow, false).await {
                Ok(response) => unread.push(response),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
        assert_eq!(unread.len(), 64 / 3);
        assert!(responses.add(response(3 * 1024 * 1024), other, false).await.is_ok());
        drop(unread);
        assert!(responses.add(response(3 * 1024 * 1024), slow, false).await.is_ok());
        assert_eq!(responses.metrics.unsent_kib.get(), 0);
    }

    /// N21: a write is refused before it runs, and never after its commit.
    #[tokio::test]
    async fn a_write_is_refused_only_before_it_runs() {
        let responses = UnsentResponses::new(&mut Registry::default());
        let slow = owner();
        let kib_of_share = MAX_UNSENT_KIB / 2;
        assert!(responses.check_before_write(slow).is_ok());
        let unread = responses.add(response(kib_of_share * 1024), slow, false).await;
        let refusal = responses.check_before_write(slow).expect_err("the share is used up");
        assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
        assert!(responses.add(response(2 * SMALL), slow, false).await.is_err());
        assert!(responses.add(response(2 * SMALL), slow, true).await.is_ok());
        drop(unread);
        assert!(responses.check_before_write(slow).is_ok());
    }

    /// N21: the rest of a response that is not read is dropped after the timeout.
    #[tokio::test]
    async fn a_response_that_is_not_read_expires() {
        let mut responses = UnsentResponses::new(&mut Registry::default());
        responses.send_timeout = Duration::from_millis(1);
        let added =
            responses.add(response(3 * PART), owner(), false).await.expect("the share is unused");
        let mut body = added.into_body();
        while responses.metrics.expired.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(responses.metrics.unsent_kib.get(), 0);
        let frame = next_frame(&mut body).await.expect("trailers");
        let trailers = frame.into_trailers().expect("trailers");
        let status = Status::from_header_map(&trailers).expect("a status");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(next_frame(&mut body).await.is_none());
    }
}
