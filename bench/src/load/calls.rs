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

use super::{codec::BytesCodec, connection::Connection};

/// Token and message of one call.
#[derive(Clone)]
pub struct Request {
    /// Value of the `authorization` metadata.
    pub token: Option<MetadataValue<Ascii>>,
    pub message: Bytes,
}

/// The judgement of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A good response: the response that the scenario expects.
    Good,
    /// A refusal that the scenario causes on purpose. The value is the time to wait before the next
    /// call.
    Refused(Duration),
    /// Any other response. A wrong response stops the measurement.
    Wrong,
}

/// Calls of one method that cycle through a list of requests. A clone is cheap and shares the
/// position in the list.
#[derive(Clone)]
pub struct Calls {
    /// Name in the report.
    pub name: &'static str,
    path: PathAndQuery,
    requests: Arc<[Request]>,
    /// Index of the next request, without the modulo of the number of requests.
    next_index: Arc<AtomicUsize>,
    judge: Judge,
    /// Values of `x-forwarded-for`, used in turn. When empty, the calls do not send the header.
    addresses: Arc<[MetadataValue<Ascii>]>,
    /// Time after which the client cancels a call; `None` for never.
    cancel_after: Option<Duration>,
}

impl Calls {
    /// Calls of the method `path`. `judge` judges each response.
    pub fn new(
        name: &'static str,
        path: &'static str,
        requests: Vec<Request>,
        judge: Judge,
    ) -> Self {
        let (path, next_index) = (PathAndQuery::from_static(path), Arc::default());
        let addresses = Arc::from([]);
        Self {
            name,
            path,
            requests: requests.into(),
            next_index,
            judge,
            addresses,
            cancel_after: None,
        }
    }

    /// Sends these addresses as `x-forwarded-for`, in turn, as a trusted proxy does.
    pub fn with_addresses(self, addresses: Vec<MetadataValue<Ascii>>) -> Self {
        Self { addresses: addresses.into(), ..self }
    }

    /// Cancels each call after this time. A cancelled call is recorded as refused.
    pub fn cancel_after(self, time: Duration) -> Self {
        Self { cancel_after: Some(time), ..self }
    }

    /// Replaces the name in the report.
    pub fn with_name(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// A copy that starts from the first request and does not share the position in the list.
    pub fn copy_at_start(&self) -> Self {
        Self { next_index: Arc::default(), ..self.clone() }
    }

    /// The next request. After the last request, the first request follows.
    pub(super) fn next_request(&self) -> &Request {
        &self.requests[self.next_index.fetch_add(1, Ordering::Relaxed) % self.requests.len()]
    }

    /// The next request, or `None` when all requests were sent.
    pub(super) fn next_unsent_request(&self) -> Option<&Request> {
        self.requests.get(self.next_index.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Returns an error that contains the response when the response is wrong.
    pub(super) async fn send(
        &self,
        request: &Request,
        grpc: &mut Grpc<Connection>,
    ) -> anyhow::Result<Verdict> {
        let mut tonic_request = tonic::Request::new(request.message.clone());
        if let Some(token) = &request.token {
            tonic_request.metadata_mut().insert("authorization", token.clone());
        }
        if !self.addresses.is_empty() {
            let index = self.next_index.load(Ordering::Relaxed) % self.addresses.len();
            tonic_request.metadata_mut().insert("x-forwarded-for", self.addresses[index].clone());
        }
        let call = async {
            match grpc.ready().await {
                Ok(()) => grpc.unary(tonic_request, self.path.clone(), BytesCodec).await,
                Err(error) => Err(Status::unavailable(error.to_string())),
            }
        };
        let response = match self.cancel_after {
            None => call.await,
            Some(time) => match tokio::time::timeout(time, call).await {
                Ok(response) => response,
                Err(_) => return Ok(Verdict::Refused(time)),
            },
        };
        let result = response.map(tonic::Response::into_inner);
        match (self.judge)(&result) {
            Verdict::Wrong => Err(match result {
                Ok(message) => anyhow::anyhow!("{}: a wrong response, {message:?}", self.name),
                Err(status) => {
                    anyhow::anyhow!("{}: {:?}, {}", self.name, status.code(), status.message())
                }
            }),
            verdict => Ok(verdict),
        }
    }
}

/// Function that judges the result of a call.
pub type Judge = fn(&Result<Bytes, Status>) -> Verdict;

/// Accepts responses whose first field is 1: `SERVING` of a health check, `allowed` of a decision.
/// Prost writes fields in order, so these are the first two bytes.
pub fn serving_or_allowed(result: &Result<Bytes, Status>) -> Verdict {
    match result {
        Ok(message) if message.starts_with(&[0x08, 0x01]) => Verdict::Good,
        _ => Verdict::Wrong,
    }
}
