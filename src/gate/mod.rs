//! What every call passes before its handler: one layer, one ordered list.
//!
//! [`admit`] says the order; the other files are its steps. A call that passes
//! reaches its handler with a [`Visitor`], a [`Caller`] or a [`Reaching`] in
//! its extensions, which nothing else can make: holding one is the proof.

mod admit;
mod caller;
mod deadline;
mod metadata;
mod policy;

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument;

pub use admit::Gatekeeper;
pub use caller::{Caller, NamedTenant, Reach, Reaching, Visitor, caller, reaching, visitor};
pub use policy::{Access, MethodPolicy, Policies};

use crate::{error, proto::v1::ErrorReason};

/// The metadata key that finds a request in the log; sent by the client or made
/// here, and returned either way.
pub const REQUEST_ID: &str = "x-request-id";

/// Puts the gate before the services.
#[derive(Clone)]
pub struct GateLayer {
    keeper: Arc<Gatekeeper>,
    in_progress: Arc<Semaphore>,
    time_limit: Duration,
}

impl GateLayer {
    /// A gate that lets `max_requests` be in progress at once, each until its
    /// deadline and no longer than `time_limit`.
    #[must_use]
    pub fn new(keeper: Gatekeeper, max_requests: usize, time_limit: Duration) -> Self {
        let in_progress = Arc::new(Semaphore::new(max_requests.min(Semaphore::MAX_PERMITS)));
        Self { keeper: Arc::new(keeper), in_progress, time_limit }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate { inner, layer: self.clone() }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    layer: GateLayer,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone is not ready; what was polled ready is.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        let origin = metadata::origin(&request);
        let request_id = origin.request_id.clone();
        let method = request.uri().path().to_owned();
        let span = tracing::info_span!("rpc", method, request_id);
        let is_own = policy::is_own(&method);
        let started = Instant::now();
        let time = deadline::of(request.headers(), layer.time_limit);
        let work = async move {
            // A probe that was refused for load would have the server restarted.
            let permit = layer.in_progress.try_acquire();
            if permit.is_err() && is_own {
                return Ok(refuse(&overloaded()));
            }
            match layer.keeper.admit(&mut request, origin).await {
                Ok(()) => forward(inner, request).await,
                Err(refusal) => Ok(refuse(&Status::from(refusal))),
            }
        };
        // Tonic's own timer is made after this one, so it never comes first: its
        // status would say neither the code nor the reason that callers know.
        let work = tokio::time::timeout(time, work);
        let logged = async move {
            let mut response = match work.await {
                Ok(response) => response?,
                Err(_) => refuse(&deadline_exceeded()),
            };
            if let Ok(value) = HeaderValue::from_str(&request_id) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            log(is_own, &response, started);
            Ok(response)
        };
        Box::pin(logged.instrument(span))
    }
}

/// Calls the handler. A panic in it is this call's INTERNAL and nothing more;
/// a status that a library made gets the details that ours have.
async fn forward<S>(mut inner: S, request: Request<Body>) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let Ok(result) = AssertUnwindSafe(inner.call(request)).catch_unwind().await else {
        tracing::error!("a handler panicked");
        return Ok(refuse(&error::status(ErrorReason::Internal, "internal error")));
    };
    let response = result?;
    let bare = Status::from_header_map(response.headers()).as_ref().and_then(error::with_reason);
    Ok(match bare {
        Some(status) => refuse(&status),
        None => response,
    })
}

fn refuse(status: &Status) -> Response<Body> {
    status.clone().into_http()
}

fn deadline_exceeded() -> Status {
    let text = "the deadline passed before the answer was there";
    error::status(ErrorReason::DeadlineExceeded, text)
}

fn overloaded() -> Status {
    error::status(ErrorReason::Overloaded, "the server handles as many requests as it may")
}

fn log(is_own: bool, response: &Response<Body>, started: Instant) {
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
    let micros = started.elapsed().as_micros();
    // Probes and reflection would drown the rest.
    if is_own {
        tracing::info!(?code, micros, "done");
    } else {
        tracing::debug!(?code, micros, "done");
    }
}
