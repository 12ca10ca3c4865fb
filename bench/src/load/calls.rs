//! Calls of one method. All requests are encoded before the first call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::{
    Status,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
};

use super::{codec::Encoded, connection::Connection};

/// Token and message of one call.
#[derive(Clone)]
pub struct Request {
    /// Value of the `authorization` metadata.
    pub token: Option<MetadataValue<Ascii>>,
    pub message: Bytes,
}

/// Result of judging an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The expected answer.
    Good,
    /// A refusal that this load provokes on purpose. The value is the time to wait before the
    /// next call.
    Refused(Duration),
    /// Any other answer. A wrong answer stops the measurement.
    Wrong,
}

/// Calls of one method that cycle through a list of requests. A clone is cheap and shares the
/// position in the list.
#[derive(Clone)]
pub struct Calls {
    /// Name for the report.
    pub name: &'static str,
    path: PathAndQuery,
    requests: Arc<[Request]>,
    next: Arc<AtomicUsize>,
    judge: Judge,
    /// Values of `x-forwarded-for`, used in turn. When empty, the calls do not send the header.
    addresses: Arc<[MetadataValue<Ascii>]>,
    /// Timeout after which the client cancels a call.
    cancelled_after: Option<Duration>,
}

impl Calls {
    /// Calls of the method `path`. `judge` judges each answer.
    pub fn new(
        name: &'static str,
        path: &'static str,
        requests: Vec<Request>,
        judge: Judge,
    ) -> Self {
        let (path, next) = (PathAndQuery::from_static(path), Arc::default());
        let addresses = Arc::from([]);
        Self {
            name,
            path,
            requests: requests.into(),
            next,
            judge,
            addresses,
            cancelled_after: None,
        }
    }

    /// Sends these addresses as `x-forwarded-for`, in turn, as a trusted proxy does.
    pub fn with_addresses(self, addresses: Vec<MetadataValue<Ascii>>) -> Self {
        Self { addresses: addresses.into(), ..self }
    }

    /// Cancels each call after this timeout. A cancelled call is recorded as refused.
    pub fn cancelled_after(self, time: Duration) -> Self {
        Self { cancelled_after: Some(time), ..self }
    }

    /// Changes the name.
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// A copy that starts from the first request and has its own position.
    pub fn again(&self) -> Self {
        Self { next: Arc::default(), ..self.clone() }
    }

    /// The next request. After the last request, the list starts again.
    pub(super) fn next(&self) -> &Request {
        &self.requests[self.next.fetch_add(1, Ordering::Relaxed) % self.requests.len()]
    }

    /// The next request, or `None` when all were sent.
    pub(super) fn next_unsent(&self) -> Option<&Request> {
        self.requests.get(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Returns an error that contains the answer when the answer is wrong.
    pub(super) async fn send(
        &self,
        request: &Request,
        grpc: &mut Grpc<Connection>,
    ) -> anyhow::Result<Verdict> {
        let mut message = tonic::Request::new(request.message.clone());
        if let Some(token) = &request.token {
            message.metadata_mut().insert("authorization", token.clone());
        }
        if !self.addresses.is_empty() {
            let turn = self.next.load(Ordering::Relaxed) % self.addresses.len();
            message.metadata_mut().insert("x-forwarded-for", self.addresses[turn].clone());
        }
        let call = async {
            match grpc.ready().await {
                Ok(()) => grpc.unary(message, self.path.clone(), Encoded).await,
                Err(error) => Err(Status::unavailable(error.to_string())),
            }
        };
        let answer = match self.cancelled_after {
            None => call.await,
            Some(time) => match tokio::time::timeout(time, call).await {
                Ok(answer) => answer,
                Err(_) => return Ok(Verdict::Refused(time)),
            },
        };
        let answer = answer.map(tonic::Response::into_inner);
        match (self.judge)(&answer) {
            Verdict::Wrong => Err(match answer {
                Ok(reply) => anyhow::anyhow!("{}: a wrong answer, {reply:?}", self.name),
                Err(status) => {
                    anyhow::anyhow!("{}: {:?}, {}", self.name, status.code(), status.message())
                }
            }),
            verdict => Ok(verdict),
        }
    }
}

/// Function that judges an answer.
pub type Judge = fn(&Result<Bytes, Status>) -> Verdict;

/// Accepts answers whose first field is 1: `SERVING` of a health check, `allowed` of a
/// decision. Prost writes fields in order, so these are the first two bytes.
pub fn serving_or_allowed(answer: &Result<Bytes, Status>) -> Verdict {
    match answer {
        Ok(reply) if reply.starts_with(&[0x08, 0x01]) => Verdict::Good,
        _ => Verdict::Wrong,
    }
}
