//! The layer that every call passes before its handler.
//!
//! [`admit`] does the checks in their order; the other files contain the single checks. The gate
//! adds a [`Visitor`], a [`Caller`], a [`SelfOrPermitted`] or a [`WriteCaller`] to the extensions
//! of an admitted request. Only the gate can create these values, so each value is a proof of
//! admission for the handler.
#![warn(missing_docs)]

mod admit;
mod caller;
mod compression;
mod deadline;
mod long_calls;
mod message;
mod metadata;
mod policy;
mod progress;
mod proof;
mod reflection;
mod refusals;
mod stream_admission;
mod stream_limits;
mod unsent;
mod write_caller;

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
use tonic_types::StatusExt;
use tower::Service;
use tracing::{Instrument, field};

pub use admit::Authorizer;
pub use caller::{Caller, NamedTenant, Reach, SelfOrPermitted, Visitor};
pub use message::{RequestBody, discard_body};
pub use metadata::REQUEST_ID;
pub use policy::{Access, ENVOY_CHECK, MethodPolicy, Policies, Power};
pub use proof::{admission, caller, self_or_permitted, visitor, write_caller};
pub use stream_admission::Admission;
pub use stream_limits::{StreamPermit, StreamPermits};
pub use write_caller::{RoleGrant, WriteCaller};

use admit::Identified;
use compression::Encoding;
use long_calls::LongCalls;
use progress::{CallOwner, Progress};
use reflection::{ReflectionPermit, ReflectionStreams};
use unsent::UnsentResponses;

use crate::{
    audit::{CorrelationId, Origin},
    error,
    ids::{SubjectId, TenantId},
    proto::v1::ErrorReason,
    telemetry::{self, Calls, Traces},
};

/// Maximum size of a public method's message, in bytes. This bounds the memory for incomplete
/// messages of clients without a token.
const PUBLIC_MESSAGE: usize = 64 * 1024;

/// Status message of a call whose deadline has passed.
const DEADLINE_MESSAGE: &str = "the deadline passed before the response was ready";

/// Admits calls, runs their handlers within the limits, and records the outcome.
pub struct Gate {
    authorizer: Arc<Authorizer>,
    calls: Calls,
    traces: Option<Arc<Traces>>,
    progress: Progress,
    unsent_responses: UnsentResponses,
    reflection_streams: ReflectionStreams,
    long_calls: LongCalls,
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

/// An admitted call.
struct Admitted<'a> {
    request: Request<Body>,
    owner: CallOwner,
    is_long: bool,
    /// Whether to compress a large response: the client accepts gzip, and the method lists or
    /// changes resources. So no response with a token of a session is compressed.
    compresses_response: bool,
    _permit: SemaphorePermit<'a>,
}

impl Gate {
    /// Creates a gate with these limits and starts the threads for long calls.
    ///
    /// # Errors
    /// Returns an error when the operating system can't start the threads.
    pub fn new(
        authorizer: Arc<Authorizer>,
        calls: Calls,
        traces: Option<Arc<Traces>>,
        limits: GateLimits,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            authorizer,
            calls,
            traces,
            progress: Progress::new(limits.requests, registry),
            unsent_responses: UnsentResponses::new(registry),
            reflection_streams: ReflectionStreams::new(),
            long_calls: LongCalls::start(limits.threads)?,
            time_limit: limits.time,
            message_limit: limits.message,
        })
    }

    /// Passes an admitted call to the services, or returns the refusal.
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
        if policy::is_own_method(request.uri().path()) {
            return self.pass_own_method(request, ip, services).await;
        }
        // Health probes and reflection. These calls wait for nothing. No call is logged, because
        // the lines would hide the other lines. No call is counted as a call in progress, because
        // the orchestrator would restart the server if a probe was refused under load.
        match self.admit_standard_call(&request, ip) {
            // Tonic decompresses the messages of these services.
            Ok(permit) => {
                let handler = run_handler(services, request.map(Body::new));
                let response = time::timeout(self.time_limit, handler).await;
                let response =
                    response.unwrap_or_else(|_| refuse(&deadline_exceeded(DEADLINE_MESSAGE)));
                reflection::hold_permit(response, permit)
            }
            Err(refusal) => {
                message::discard_body(request.into_body());
                refuse(&refusal)
            }
        }
    }

    /// Admits a call to a health probe or to reflection. Returns the permit of a reflection stream.
    fn admit_standard_call(
        &self,
        request: &Request<impl RequestBody>,
        ip: IpAddr,
    ) -> Result<Option<ReflectionPermit>, Status> {
        Authorizer::admit_public(request)?;
        compression::check_encoding(request.headers())?;
        let client = self.authorizer.proxies.client(ip, request.headers());
        self.reflection_streams.acquire(request.uri().path(), client)
    }

    /// Like [`Gate::pass`], for a method of this service: with all checks, limits, traces, metrics
    /// and log lines.
    async fn pass_own_method<S>(
        &self,
        request: Request<impl RequestBody>,
        ip: IpAddr,
        services: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let start = Instant::now();
        let trace = self.traces.as_ref().and_then(|traces| traces.begin(request.headers()));
        let client = self.authorizer.proxies.client(ip, request.headers());
        let origin = metadata::origin(&request, client);
        let correlation_id = origin.correlation_id.clone();
        let method = self.authorizer.policies.method(request.uri().path());
        let time_limit = deadline::time_limit(request.headers(), self.time_limit);
        let deadline = tokio::time::Instant::from_std(start) + time_limit;
        let identified = Identified::new();
        let mut call = pin!(crate::concurrency::deadline::scope(deadline, async {
            match self.admit(request, method, origin, &identified).await {
                Ok((admitted, caller)) => {
                    let handled = self.handle(admitted, method, deadline, services).await;
                    let response = handled.unwrap_or_else(|refusal| refuse(&refusal));
                    self.record_refusal(caller, method, response.headers()).await;
                    response
                }
                Err(refusal) => refuse(&refusal),
            }
        }));
        let is_frequent = method.is_some_and(|method| method.is_frequent);
        // An unknown path is logged as `unknown`, because any client can send any text.
        let path = method.map_or("unknown", |method| &method.path);
        // A call that needs only cached data is ready at the first poll. Only a call that has to
        // wait needs a timer, and a span for the lines that the call logs.
        let with_timeout = |call| {
            let span = tracing::info_span!("rpc", method = path, request_id = %correlation_id);
            time::timeout(time_limit, call).instrument(span)
        };
        let result = match &trace {
            Some(trace) => Box::pin(with_timeout(call).with_context(trace.clone())).await,
            None => match poll!(call.as_mut()) {
                Poll::Ready(response) => Ok(response),
                Poll::Pending => with_timeout(call).await,
            },
        };
        let mut response = result.unwrap_or_else(|_| refuse(&deadline_exceeded(DEADLINE_MESSAGE)));
        let duration = start.elapsed();
        let status = Status::from_header_map(response.headers());
        let code = status.as_ref().map_or(Code::Ok, Status::code);
        let (index, name) =
            method.map_or((usize::MAX, "_OTHER"), |method| (method.index, method.name()));
        self.calls.record_call((index, name), code, duration, trace.as_ref());
        let is_logged = !is_frequent || code != Code::Ok;
        if is_logged {
            let (micros, trace_id) =
                (duration.as_micros(), trace.as_ref().map(telemetry::trace_id));
            let (tenant, subject) = identified.get().copied().unzip();
            let reason = status.and_then(|status| status.get_details_error_info());
            tracing::info!(
                method = path,
                request_id = %correlation_id,
                trace_id,
                tenant = tenant.map(field::display),
                subject = subject.map(field::display),
                ?code,
                reason = reason.map(|info| info.reason),
                micros,
                "done"
            );
        }
        if let Some(trace) = trace {
            telemetry::end_span(&trace, name, code, &correlation_id.to_string());
        }
        if is_logged || matches!(correlation_id, CorrelationId::Sent(_)) {
            let value = correlation_id.header();
            response.headers_mut().extend(value.map(|value| (REQUEST_ID, value)));
        }
        response
    }

    /// Runs the handler, and counts its response until the client has read it.
    async fn handle<S>(
        &self,
        admitted: Admitted<'_>,
        method: Option<&MethodPolicy>,
        deadline: tokio::time::Instant,
        services: S,
    ) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let owner = admitted.owner.share_owner();
        let is_write = method.is_some_and(|method| method.power.is_some());
        if is_write {
            self.unsent_responses.check_before_write(owner)?;
        }
        let response = self.run(admitted, deadline, services).await;
        if method.is_some_and(|method| method.is_stream) {
            // A stream bounds the messages that wait.
            return Ok(response);
        }
        self.unsent_responses.add(response, owner, is_write).await
    }

    /// Records the handler's refusal in the audit trail if its code is `PERMISSION_DENIED`.
    async fn record_refusal(
        &self,
        caller: Option<Caller>,
        method: Option<&MethodPolicy>,
        response_headers: &HeaderMap,
    ) {
        if let (Some(caller), Some(method)) = (caller, method)
            && let Some(status) = Status::from_header_map(response_headers)
        {
            self.authorizer.record_refusal(&caller, &method.path, &status).await;
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
        identified: &Identified,
    ) -> Result<(Admitted<'_>, Option<Caller>), Status> {
        let (mut head, mut body) = request.into_parts();
        let limit = self.message_limit_of(method);
        let result = match compression::check_encoding(&head.headers) {
            Ok(()) => self.read_message(&head.headers, &mut body, limit, method, &origin).await,
            Err(refusal) => Err(refusal),
        };
        let message = match result {
            Ok(message) => message,
            Err(refusal) => {
                message::discard_body(body);
                return Err(refusal);
            }
        };
        let encoding = compression::take_encoding(&mut head.headers);
        let permit = self.progress.begin()?;
        let ip = origin.ip;
        let mut request = Request::from_parts(head, Body::empty());
        let caller = {
            let admission = self.authorizer.admit(&mut request, method, origin, identified);
            let mut admission = pin!(admission);
            match poll!(admission.as_mut()) {
                Poll::Ready(caller) => caller?,
                // The caller is not known yet, so the wait counts against its network.
                Poll::Pending => {
                    let _permits = self.progress.begin_wait(CallOwner::of(None, ip))?;
                    admission.await?
                }
            }
        };
        if let (Some(method), Some(caller)) = (method, &caller)
            && method.is_stream
        {
            let authorizer = self.authorizer.clone();
            let admission = Admission::new(authorizer, &method.path, request.headers(), caller);
            request.extensions_mut().insert(admission);
        }
        let owner = CallOwner::of(caller.as_ref(), ip);
        let (body, is_short) = message_body(message, encoding, limit, owner).await?;
        let is_long_method = method.is_some_and(|method| method.is_long);
        let compresses_response = is_long_method && compression::accepts_gzip(request.headers());
        let is_long = is_long_method || !is_short;
        let request = request.map(|_| body);
        let admitted = Admitted { request, owner, is_long, compresses_response, _permit: permit };
        Ok((admitted, caller))
    }

    /// Maximum size of a message to this method, with or without compression, in bytes.
    fn message_limit_of(&self, method: Option<&MethodPolicy>) -> usize {
        let is_public = method.is_some_and(|method| method.access == Access::Public);
        if is_public { PUBLIC_MESSAGE.min(self.message_limit) } else { self.message_limit }
    }

    /// Reads the whole message of a call. If the message has not arrived yet, checks the metadata
    /// first.
    async fn read_message(
        &self,
        headers: &HeaderMap,
        body: &mut impl RequestBody,
        limit: usize,
        method: Option<&MethodPolicy>,
        origin: &Origin,
    ) -> Result<Bytes, Status> {
        let mut message = pin!(message::read(body, limit));
        match poll!(message.as_mut()) {
            Poll::Ready(message) => message,
            Poll::Pending => {
                Box::pin(self.authorizer.screen(headers, method, origin.clone())).await?;
                if let Ok(message) = time::timeout(progress::LATE_AFTER, message.as_mut()).await {
                    return message;
                }
                let _permit = self.progress.begin_late_message(origin.ip)?;
                let text = "the message did not arrive in time";
                let result = time::timeout(progress::MESSAGE_TIMEOUT, message).await;
                result.unwrap_or_else(|_| Err(deadline_exceeded(text)))
            }
        }
    }

    /// Runs the handler. A call that has to wait holds a permit of its owner's share from its first
    /// wait on.
    async fn run<S>(
        &self,
        admitted: Admitted<'_>,
        deadline: tokio::time::Instant,
        services: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let owner = admitted.owner;
        if let (true, CallOwner::Subject(tenant, subject)) = (admitted.is_long, owner) {
            let caller = (tenant, subject);
            let handler =
                Box::pin(self.run_on_long_call_thread(caller, deadline, services, admitted));
            return self.wait_for(handler, owner).await;
        }
        let Admitted { request, _permit, .. } = admitted;
        let mut handler = pin!(run_handler(services, request));
        match poll!(handler.as_mut()) {
            Poll::Ready(response) => response,
            Poll::Pending => self.wait_for(handler, owner).await,
        }
    }

    /// Waits for a response. During the wait, the call holds a permit of its owner's share.
    async fn wait_for(
        &self,
        handler: impl Future<Output = Response<Body>>,
        owner: CallOwner,
    ) -> Response<Body> {
        match self.progress.begin_wait(owner) {
            Ok(_permits) => handler.await,
            Err(refusal) => refuse(&refusal),
        }
    }

    async fn run_on_long_call_thread<S>(
        &self,
        (tenant, subject): (TenantId, SubjectId),
        deadline: tokio::time::Instant,
        services: S,
        admitted: Admitted<'_>,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let Admitted { request, compresses_response, _permit, .. } = admitted;
        // Yield once: the span for waiting calls begins after the first poll, and the handler's log
        // lines must be inside this span.
        task::yield_now().await;
        let Some(handler) = start_handler(services, request) else {
            return response_or_internal(None);
        };
        let handler = async move {
            let Ok(response) = handler.await;
            // Encoded here, because to encode a large response takes milliseconds.
            Ok(compression::encode(response, compresses_response).await)
        };
        let handler = crate::concurrency::deadline::scope(deadline, handler);
        let handler = handler.instrument(tracing::Span::current()).with_current_context();
        response_or_internal(self.long_calls.run(tenant, subject, handler).await)
    }
}

/// The body for the service: the message without compression, and whether it is short.
///
/// A large compressed message of a subject is decompressed later, by a thread for long calls: these
/// threads work on a limited number of messages at a time, so that small compressed messages can't
/// fill the memory.
async fn message_body(
    message: Bytes,
    encoding: Encoding,
    limit: usize,
    owner: CallOwner,
) -> Result<(Body, bool), Status> {
    if encoding == Encoding::Identity || !compression::is_compressed(&message) {
        let is_short = message.len() <= long_calls::MAX_SHORT_MESSAGE;
        return Ok((Body::new(Full::new(message)), is_short));
    }
    let is_of_subject = matches!(owner, CallOwner::Subject(..));
    let limit_here = if is_of_subject { limit.min(long_calls::MAX_SHORT_MESSAGE) } else { limit };
    match Box::pin(compression::decompress(&message, limit_here)).await? {
        Some(plain) => Ok((Body::new(Full::new(plain)), true)),
        None if limit_here < limit => Ok((compression::decompressing_body(message, limit), false)),
        None => Err(message::too_large(limit)),
    }
}

/// Runs the handler. A panic in the handler fails only this call, with INTERNAL.
async fn run_handler<S>(services: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    // Two steps instead of one `async` block, which would move the request once more.
    let result = match start_handler(services, request) {
        Some(handler) => AssertUnwindSafe(handler).catch_unwind().await.ok(),
        None => None,
    };
    response_or_internal(result)
}

/// Starts the handler and returns its future; `None` when the handler panicked
/// immediately.
fn start_handler<S: Service<Request<Body>>>(
    mut services: S,
    request: Request<Body>,
) -> Option<S::Future> {
    panic::catch_unwind(AssertUnwindSafe(|| services.call(request))).ok()
}

/// The handler's response; INTERNAL when the handler panicked (`None`). An error status without
/// details comes from a library, and gets the error details of this API.
fn response_or_internal(result: Option<Result<Response<Body>, Infallible>>) -> Response<Body> {
    let Some(Ok(response)) = result else {
        tracing::error!("a handler panicked");
        return refuse(&error::status(ErrorReason::Internal, "internal error"));
    };
    let status_with_details =
        Status::from_header_map(response.headers()).as_ref().and_then(error::with_reason);
    status_with_details.map_or(response, |status| refuse(&status))
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
        panic!("after a wait")
    }

    /// K11: a panic fails only its own call, at the start of the handler or after a wait. The
    /// permits of the call are released.
    #[tokio::test]
    async fn a_panic_in_a_handler_fails_only_its_own_call() {
        let panic_at_start =
            |_| -> Ready<Result<Response<Body>, Infallible>> { panic!("at the start") };
        assert_internal(&run_handler(service_fn(panic_at_start), request()).await);

        let permits = Arc::new(Semaphore::new(1));
        let handler_permits = permits.clone();
        let panic_after_wait =
            service_fn(move |_: Request<Body>| take_permit_and_panic(handler_permits.clone()));
        for _ in 0..3 {
            assert_internal(&run_handler(panic_after_wait.clone(), request()).await);
            assert_eq!(permits.available_permits(), 1);
        }
    }
}
