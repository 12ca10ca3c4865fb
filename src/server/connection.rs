//! Serves one connection, from its first byte to its graceful shutdown.

use std::{
    convert::Infallible,
    future::{self, Future},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time,
};
use tonic::body::Body;
use tower::service_fn;

use super::{
    byte_counter::ByteCounter,
    services::Services,
    web::{self, GrpcWeb, refuse},
};
use crate::{
    credentials::api_keys::ClientNames,
    gate::Gate,
    secrets::tls::{self, Tls},
};

/// Maximum size of a call's metadata, in bytes. The gate has a lower limit, above which it returns
/// an error with a reason. Above this size, the client gets HTTP status 431.
const MAX_METADATA_READ: u32 = 32 * 1024;

/// Maximum number of open streams of one connection.
const MAX_STREAMS: u32 = 256;

/// Maximum number of streams that the peer resets before the server handles them. Above this number
/// the peer gets `ENHANCE_YOUR_CALM` (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;

/// Maximum number of streams that the server resets because of the peer's errors. Above this number
/// the peer gets `ENHANCE_YOUR_CALM` (CVE-2025-8671).
const MAX_RESETS_FOR_ERRORS: usize = 128;

/// Timeout of a connection's TLS handshake, and of its first HTTP bytes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Length of the HTTP/2 connection preface and the header of the frame that must follow, in
/// bytes (RFC 9113, section 3.4). No HTTP/1 request is shorter, so the same length
/// applies to HTTP/1.
const PREFACE: usize = 24 + 9;

/// Time without traffic after which the server pings an HTTP/2 connection, and the timeout of this
/// ping. Also the timeout of the head of an HTTP/1 request. After a timeout the server closes the
/// connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What all connections share: the gate, the services behind the gate, and settings.
pub(super) struct ConnectionContext {
    pub(super) gate: Gate,
    pub(super) services: Services,
    /// Serves gRPC-Web; `None` when it is disabled.
    pub(super) web: Option<GrpcWeb>,
    /// Encrypts connections; `None` when they are not encrypted.
    pub(super) tls: Option<Arc<Tls>>,
    /// Age at which a connection accepts no more calls.
    pub(super) max_age: Duration,
    /// How long the calls in progress may continue after the connection has reached `max_age`.
    pub(super) grace_after_max_age: Duration,
}

/// Serves a connection until the peer closes it, it reaches its maximum age, or the server stops.
/// In the last two cases, calls in progress may finish.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    context: Arc<ConnectionContext>,
    stopping: watch::Receiver<bool>,
) {
    let Some(tls) = context.tls.clone() else {
        return serve_http(stream, Peer { address: peer, names: None }, context, stopping).await;
    };
    let handshake = tokio::select! {
        handshake = time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => handshake,
        () = wait_until_stopping(stopping.clone()) => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let names = tls::client_names(&stream);
            Box::pin(serve_http(stream, Peer { address: peer, names }, context, stopping)).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    context: Arc<ConnectionContext>,
    stopping: watch::Receiver<bool>,
) {
    let max_age = shorten_age(context.max_age, peer.address);
    let grace_after_max_age = context.grace_after_max_age;
    let bytes_read = Arc::new(AtomicUsize::new(0));
    let stream = TokioIo::new(ByteCounter::new(stream, bytes_read.clone()));
    let builder = http_builder(context.web.is_some());
    let mut connection = pin!(builder.serve_connection(stream, Calls { context, peer }));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = preface_timeout(&bytes_read) => {
            tracing::debug!("a client did not send the HTTP preface in time");
            return;
        }
        () = time::sleep(max_age) => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(grace_after_max_age, connection).await {
                Ok(result) => result,
                Err(_) => Ok(()),
            }
        }
        () = wait_until_stopping(stopping.clone()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
    // `Cores::drain` waits until the receivers of all connections are dropped.
    drop(stopping);
}

/// Completes when the peer has not sent the HTTP preface in time; otherwise never completes.
async fn preface_timeout(bytes_read: &AtomicUsize) {
    time::sleep(HANDSHAKE_TIMEOUT).await;
    if bytes_read.load(Ordering::Relaxed) >= PREFACE {
        future::pending::<()>().await;
    }
}

/// Shortens the maximum age by up to a tenth, depending on the client's port. So connections that
/// began at the same time do not end at the same time.
fn shorten_age(age: Duration, peer: SocketAddr) -> Duration {
    // The last two digits of the port give 0 to 99 thousandths.
    age / 1000 * (1000 - u32::from(peer.port() % 100))
}

/// Configures HTTP/2, and also HTTP/1 when gRPC-Web is served.
fn http_builder(serves_web: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_header_list_size(MAX_METADATA_READ)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_RESETS_FOR_ERRORS)
        // gRPC does not use the date header, which would cost time for each response.
        .auto_date_header(false);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEPALIVE)
        .max_buf_size(MAX_METADATA_READ as usize);
    if serves_web { builder } else { builder.http2_only() }
}

/// The other end of the connection.
struct Peer {
    address: SocketAddr,
    /// The names in the client's certificate; `None` when the client sent no certificate.
    names: Option<ClientNames>,
}

/// Handles the calls of one connection.
struct Calls {
    context: Arc<ConnectionContext>,
    peer: Peer,
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (context, ip) = (self.context.clone(), self.peer.address.ip());
        if let Some(names) = &self.peer.names {
            request.extensions_mut().insert(names.clone());
        }
        let kind = RequestKind::of(&request);
        Box::pin(async move {
            Ok(match (kind, &context.web) {
                (RequestKind::Grpc, _) => context.gate.pass(request, ip, &context.services).await,
                (RequestKind::GrpcWeb(encoding), Some(web)) => {
                    let pass = |request| context.gate.pass(request, ip, &context.services).map(Ok);
                    // Boxed, so that the future of a gRPC call does not reserve space for this
                    // future.
                    Box::pin(web.call(request, encoding, service_fn(pass))).await
                }
                (RequestKind::Preflight, Some(web)) => Box::pin(web.preflight(request)).await,
                _ => refuse(request, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            })
        })
    }
}

/// The protocol of a request.
enum RequestKind {
    Grpc,
    GrpcWeb(web::Encoding),
    /// The CORS preflight of a browser.
    Preflight,
    /// A request that is not gRPC, so it is refused (gRPC over HTTP/2, "Requests", Content-Type).
    /// Any web page can make a browser send some of these requests without a preflight.
    Other,
}

impl RequestKind {
    fn of<B>(request: &Request<B>) -> Self {
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match content_type.map(|value| value.strip_prefix(b"application/grpc")) {
            // gRPC: `application/grpc`, also with a suffix such as `+proto`, or with parameters.
            Some(Some([] | [b'+' | b';', ..])) if request.version() == Version::HTTP_2 => {
                Self::Grpc
            }
            // Any other content type, which can be a content type of gRPC-Web.
            Some(_) if request.method() == Method::POST => {
                web::Encoding::of_request(request.headers()).map_or(Self::Other, Self::GrpcWeb)
            }
            None if request.method() == Method::OPTIONS => Self::Preflight,
            _ => Self::Other,
        }
    }
}

/// Completes when the server stops accepting calls.
pub(super) async fn wait_until_stopping(mut stopping: watch::Receiver<bool>) {
    stopping.wait_for(|stopping| *stopping).await.ok();
}
