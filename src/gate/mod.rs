//! The layer that every call passes before its handler.
//!
//! [`admit`] has the order of the checks. The other files have the single checks. The gate puts a
//! [`Visitor`], a [`Caller`], a [`SelfOrPermitted`] or a [`WriteCaller`] into the extensions of an
//! admitted request. Only the gate can make these values, so a handler that holds one has proof
//! of admission.
#![warn(missing_docs)]

mod acting;
mod admission;
mod admit;
mod caller;
mod deadline;
mod long_calls;
mod message;
mod metadata;
mod policy;
mod progress;
mod proof;
mod refusals;

use std::{
    convert::Infallible,
    net::IpAddr,
    panic::{self, AssertUnwindSafe},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, poll};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use opentelemetry::context::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::{sync::SemaphorePermit, task, time};
use tonic::{Code, Status, body::Body};
use tower::Service;
use tracing::Instrument;

pub use acting::{RoleGrant, WriteCaller};
pub use admission::Admission;
pub use admit::Gatekeeper;
pub use caller::{Caller, NamedTenant, Reach, SelfOrPermitted, Visitor};
pub use message::{RequestBody, discard_body};
pub use metadata::REQUEST_ID;
pub use policy::{Access, ENVOY_CHECK, MethodPolicy, Policies, Power};
pub use proof::{acting, admission, caller, reaching, visitor};

use long_calls::LongCalls;
use progress::{CallOwner, Progress};

use crate::{
    audit::{CorrelationId, Origin},
    error,
    ids::{TenantId, UserId},
    proto::v1::ErrorReason,
    telemetry::{self, Calls, Traces},
};

/// Maximum size of a public method's message, in bytes. This size bounds the memory that the
/// server holds for unfinished messages of clients without a token.
const PUBLIC_MESSAGE: usize = 64 * 1024;

/// Status message of a call whose deadline has passed.
const TOO_LATE: &str = "the deadline passed before the response was ready";

/// Admits calls, runs their handlers within the limits, and records the outcome.
pub struct Gate {
    keeper: Arc<Gatekeeper>,
    calls: Calls,
    traces: Option<Arc<Traces>>,
    progress: Progress,
    long: LongCalls,
    time_limit: Duration,
    message_limit: usize,
}

/// The limits that a gate enforces.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// Maximum number of calls in progress at the same time.
    pub requests: usize,
    /// Maximum duration of a call. A longer deadline of the client does not extend this duration.
    pub time: Duration,
    /// Maximum message size, in bytes.
    pub message: usize,
    /// Number of threads that serve calls.
    pub threads: usize,
}

struct Admitted<'a> {
    request: Request<Body>,
    owner: CallOwner,
    is_long: bool,
    _counted: SemaphorePermit<'a>,
}

impl Gate {
    /// Creates a gate with these limits and starts the threads for long calls.
    ///
    /// # Errors
    /// Returns an error when the operating system can't start the threads.
    pub fn new(
        keeper: Arc<Gatekeeper>,
        calls: Calls,
        traces: Option<Arc<Traces>>,
        limits: GateLimits,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            keeper,
            calls,
            traces,
            progress: Progress::new(limits.requests, registry),
            long: LongCalls::start(limits.threads)?,
            time_limit: limits.time,
            message_limit: limits.message,
        })
    }

    /// Passes an admitted call to the services, or answers with the refusal.
    pub async fn pass<S>(
        &self,
        request: Request<impl RequestBody>,
        ip: IpAddr,
        services: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        if policy::is_own(request.uri().path()) {
            return self.pass_own(request, ip, services).await;
        }
        // Health probes and reflection. These calls wait for nothing. A log line for each of these
        // calls would hide the other lines. These calls are not counted as calls in progress,
        // because the orchestrator restarts the server when a probe is refused because of load.
        match Gatekeeper::admit_public(&request) {
            Ok(()) => {
                let answered = forward(services, request.map(Body::new));
                let answered = time::timeout(self.time_limit, answered).await;
                answered.unwrap_or_else(|_| refuse(&deadline_exceeded(TOO_LATE)))
            }
            Err(refusal) => {
                message::discard_body(request.into_body());
                refuse(&Status::from(refusal))
            }
        }
    }

    async fn pass_own<S>(
        &self,
        request: Request<impl RequestBody>,
        ip: IpAddr,
        services: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let started = Instant::now();
        let trace = self.traces.as_ref().and_then(|traces| traces.begin(request.headers()));
        let client = self.keeper.proxies.client(ip, request.headers());
        let origin = metadata::origin(&request, client);
        let correlation_id = origin.correlation_id.clone();
        let method = self.keeper.policies.method(request.uri().path());
        let time_limit = deadline::of(request.headers(), self.time_limit);
        let deadline = tokio::time::Instant::from_std(started) + time_limit;
        let mut work = pin!(crate::concurrency::deadline::scope(deadline, async {
            match self.admit(request, method, origin).await {
                Ok((admitted, caller)) => {
                    let response = self.answer(admitted, deadline, services).await;
                    self.record_refusal(caller, method, response.headers()).await;
                    response
                }
                Err(refusal) => refuse(&refusal),
            }
        }));
        let is_frequent = method.is_some_and(|method| method.is_frequent);
        // An unknown path is logged as `unknown`, because any client can send any text.
        let path = method.map_or("unknown", |method| &method.path);
        // A call that is answered from the cache is ready at the first poll. Only a call that has
        // to wait needs a timer, and a span for the lines that the call logs.
        let waiting = |work| {
            let span = tracing::info_span!("rpc", method = path, request_id = %correlation_id);
            time::timeout(time_limit, work).instrument(span)
        };
        let answered = match &trace {
            Some(trace) => Box::pin(waiting(work).with_context(trace.clone())).await,
            None => match poll!(work.as_mut()) {
                Poll::Ready(response) => Ok(response),
                Poll::Pending => waiting(work).await,
            },
        };
        let mut response = answered.unwrap_or_else(|_| refuse(&deadline_exceeded(TOO_LATE)));
        let duration = started.elapsed();
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
        let (number, name) =
            method.map_or((usize::MAX, "_OTHER"), |method| (method.number, method.name()));
        self.calls.ended((number, name), code, duration, trace.as_ref());
        let is_logged = !is_frequent || code != Code::Ok;
        if is_logged {
            let (micros, trace_id) =
                (duration.as_micros(), trace.as_ref().map(telemetry::trace_id));
            tracing::info!(
                method = path, request_id = %correlation_id, trace_id, ?code, micros,
                "done"
            );
        }
        if let Some(trace) = trace {
            telemetry::end(&trace, name, code, &correlation_id.to_string());
        }
        if is_logged || matches!(correlation_id, CorrelationId::Sent(_)) {
            let value = correlation_id.header();
            response.headers_mut().extend(value.map(|value| (REQUEST_ID, value)));
        }
        response
    }

    /// Records the handler's refusal in the audit trail when it is `PERMISSION_DENIED`.
    async fn record_refusal(
        &self,
        caller: Option<Caller>,
        method: Option<&MethodPolicy>,
        answer: &HeaderMap,
    ) {
        if let (Some(caller), Some(method)) = (caller, method)
            && let Some(status) = Status::from_header_map(answer)
        {
            self.keeper.record_refusal(&caller, &method.path, &status).await;
        }
    }

    /// Admits a call after its whole message has arrived, because the caller's permissions may have
    /// changed since the call began. A call with invalid metadata is refused without a wait for the
    /// message. Also returns the caller; `None` for a public method.
    async fn admit(
        &self,
        request: Request<impl RequestBody>,
        method: Option<&MethodPolicy>,
        origin: Origin,
    ) -> Result<(Admitted<'_>, Option<Caller>), Status> {
        let (head, mut body) = request.into_parts();
        let message = match self.message(&head.headers, &mut body, method, &origin).await {
            Ok(message) => message,
            Err(refusal) => {
                message::discard_body(body);
                return Err(refusal);
            }
        };
        let counted = self.progress.begin()?;
        let is_long =
            method.is_some_and(|method| method.is_long) || message.len() > long_calls::LARGE;
        let ip = origin.ip;
        let mut request = Request::from_parts(head, Body::new(Full::new(message)));
        let caller = self.keeper.admit(&mut request, method, origin).await?;
        if let (Some(method), Some(caller)) = (method, &caller)
            && method.is_stream
        {
            let keeper = self.keeper.clone();
            let admission = Admission::new(keeper, &method.path, request.headers(), caller);
            request.extensions_mut().insert(admission);
        }
        let owner = CallOwner::of(caller.as_ref(), ip);
        Ok((Admitted { request, owner, is_long, _counted: counted }, caller))
    }

    async fn message(
        &self,
        headers: &HeaderMap,
        body: &mut impl RequestBody,
        method: Option<&MethodPolicy>,
        origin: &Origin,
    ) -> Result<Bytes, Status> {
        let is_public = method.is_some_and(|method| method.access == Access::Public);
        let limit = if is_public { PUBLIC_MESSAGE } else { usize::MAX };
        let mut message = pin!(message::gather(body, limit.min(self.message_limit)));
        match poll!(message.as_mut()) {
            Poll::Ready(message) => message,
            Poll::Pending => {
                Box::pin(self.keeper.screen(headers, method, origin.clone())).await?;
                if let Ok(message) = time::timeout(progress::LATE, message.as_mut()).await {
                    return message;
                }
                let _counted = self.progress.late(origin.ip)?;
                let text = "the message did not arrive in time";
                let arrived = time::timeout(progress::MESSAGE_TIMEOUT, message).await;
                arrived.unwrap_or_else(|_| Err(deadline_exceeded(text)))
            }
        }
    }

    /// Runs the handler. A call that has to wait takes a permit of its owner's share from its first
    /// wait on.
    async fn answer<S>(
        &self,
        admitted: Admitted<'_>,
        deadline: tokio::time::Instant,
        services: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let Admitted { request, owner, is_long, _counted } = admitted;
        if let (true, CallOwner::Subject(tenant, subject)) = (is_long, owner) {
            let caller = (tenant, subject);
            let answered =
                Box::pin(self.answer_on_long_thread(caller, deadline, services, request));
            return self.wait_for(answered, owner).await;
        }
        let mut answered = pin!(forward(services, request));
        match poll!(answered.as_mut()) {
            Poll::Ready(response) => response,
            Poll::Pending => self.wait_for(answered, owner).await,
        }
    }

    /// Waits for a response. During the wait, the call holds a permit of its owner's share.
    async fn wait_for(
        &self,
        answered: impl Future<Output = Response<Body>>,
        owner: CallOwner,
    ) -> Response<Body> {
        match self.progress.wait(owner) {
            Ok(_counted) => answered.await,
            Err(refusal) => refuse(&refusal),
        }
    }

    async fn answer_on_long_thread<S>(
        &self,
        (tenant, subject): (TenantId, UserId),
        deadline: tokio::time::Instant,
        services: S,
        request: Request<Body>,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        // Yield once, because the span for waiting calls begins after the first poll and the
        // handler's log lines belong to it.
        task::yield_now().await;
        let Some(call) = call(services, request) else { return respond(None) };
        let call = crate::concurrency::deadline::scope(deadline, call);
        let call = call.instrument(tracing::Span::current()).with_current_context();
        respond(self.long.run(tenant, subject, call).await)
    }
}

/// Calls the handler. A panic in the handler fails only this call, with INTERNAL.
async fn forward<S>(services: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    // Two steps instead of one `async` block, which would move the request once more.
    let answered = match call(services, request) {
        Some(call) => AssertUnwindSafe(call).catch_unwind().await.ok(),
        None => None,
    };
    respond(answered)
}

/// Starts the handler and returns its future; `None` when the handler panicked
/// immediately.
fn call<S: Service<Request<Body>>>(mut services: S, request: Request<Body>) -> Option<S::Future> {
    panic::catch_unwind(AssertUnwindSafe(|| services.call(request))).ok()
}

/// The handler's response; INTERNAL when the handler panicked (`None`). An error status without
/// details comes from a library, and gets the error details of this API.
fn respond(answered: Option<Result<Response<Body>, Infallible>>) -> Response<Body> {
    let Some(Ok(response)) = answered else {
        tracing::error!("a handler panicked");
        return refuse(&error::status(ErrorReason::Internal, "internal error"));
    };
    let with_details =
        Status::from_header_map(response.headers()).as_ref().and_then(error::with_reason);
    with_details.map_or(response, |status| refuse(&status))
}

fn refuse(status: &Status) -> Response<Body> {
    status.clone().into_http()
}

fn deadline_exceeded(text: &str) -> Status {
    error::status(ErrorReason::DeadlineExceeded, text)
}

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use tokio::sync::Semaphore;
    use tower::service_fn;

    use super::*;

    fn request() -> Request<Body> {
        Request::new(Body::empty())
    }

    fn assert_internal(response: &Response<Body>) {
        let status =
            Status::from_header_map(response.headers()).expect("the response has a status");
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    }

    async fn take_permit_and_panic(permits: Arc<Semaphore>) -> Result<Response<Body>, Infallible> {
        let _permit = permits.acquire_owned().await;
        tokio::task::yield_now().await;
        panic!("later")
    }

    /// K11: a panic fails only its own call, immediately or later. The permits of the call are
    /// released.
    #[tokio::test]
    async fn a_panic_in_a_handler_fails_only_its_own_call() {
        let at_once = |_| -> Ready<Result<Response<Body>, Infallible>> { panic!("at once") };
        assert_internal(&forward(service_fn(at_once), request()).await);

        let permits = Arc::new(Semaphore::new(1));
        let handler_permits = permits.clone();
        let later =
            service_fn(move |_: Request<Body>| take_permit_and_panic(handler_permits.clone()));
        for _ in 0..3 {
            assert_internal(&forward(later.clone(), request()).await);
            assert_eq!(permits.available_permits(), 1);
        }
    }
}
