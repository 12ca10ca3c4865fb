//! What is called: requests that are encoded before the first one is sent.

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

/// One call's message and token.
#[derive(Clone)]
pub struct Request {
    /// The `authorization` metadata.
    pub token: Option<MetadataValue<Ascii>>,
    /// The encoded message.
    pub message: Bytes,
}

/// What an answer is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The answer that was asked for.
    Good,
    /// A refusal that this load provokes, and how long it asks to wait before the
    /// next call.
    Refused(Duration),
    /// Anything else: there is nothing to measure.
    Wrong,
}

/// Calls of one method, again and again through a list of requests. Cheap to
/// clone; clones go through the list together.
#[derive(Clone)]
pub struct Calls {
    /// What this is, for people.
    pub name: &'static str,
    path: PathAndQuery,
    requests: Arc<[Request]>,
    next: Arc<AtomicUsize>,
    judge: Judge,
    /// The `x-forwarded-for` of the calls, in turn; none where it is empty.
    addresses: Arc<[MetadataValue<Ascii>]>,
    /// When a call is given up.
    given_up_after: Option<Duration>,
}

impl Calls {
    /// Calls of `path` whose answers `judge` looks at.
    pub fn new(
        name: &'static str,
        path: &'static str,
        requests: Vec<Request>,
        judge: Judge,
    ) -> Self {
        let (path, next) = (PathAndQuery::from_static(path), Arc::default());
        let addresses = Arc::from([]);
        Self { name, path, requests: requests.into(), next, judge, addresses, given_up_after: None }
    }

    /// The same, as a proxy passes them on from these addresses, in turn.
    pub fn with_addresses(self, addresses: Vec<MetadataValue<Ascii>>) -> Self {
        Self { addresses: addresses.into(), ..self }
    }

    /// The same, but each call is cancelled when it takes longer. That counts as a refusal.
    pub fn given_up_after(self, time: Duration) -> Self {
        Self { given_up_after: Some(time), ..self }
    }

    /// The same under another name.
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The same from the first request on, whatever was sent.
    pub fn again(&self) -> Self {
        Self { next: Arc::default(), ..self.clone() }
    }

    /// The next request; after the last comes the first.
    pub(super) fn next(&self) -> &Request {
        &self.requests[self.next.fetch_add(1, Ordering::Relaxed) % self.requests.len()]
    }

    /// The next request, unless all were sent.
    pub(super) fn next_unsent(&self) -> Option<&Request> {
        self.requests.get(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the answer is wrong, with what it was.
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
        let answer = match self.given_up_after {
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

/// What judges an answer.
pub type Judge = fn(&Result<Bytes, Status>) -> Verdict;

/// Judges answers whose first field must be 1: `SERVING` of a health check,
/// `allowed` of a decision. Prost writes fields in order, so these are the first
/// two bytes.
pub fn serving_or_allowed(answer: &Result<Bytes, Status>) -> Verdict {
    match answer {
        Ok(reply) if reply.starts_with(&[0x08, 0x01]) => Verdict::Good,
        _ => Verdict::Wrong,
    }
}
