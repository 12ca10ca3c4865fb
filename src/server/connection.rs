//! One connection: HTTP from its first byte to an orderly end.

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
    counted::Counted,
    services::Services,
    web::{self, Web, refuse},
};
use crate::{
    credentials::api_keys::ClientNames,
    gate::Gate,
    secrets::tls::{self, Tls},
};

/// The metadata of a call that is read at all, in bytes. The gate takes less, and
/// says so; beyond this the connection answers, in HTTP's words (431).
const MAX_METADATA_READ: u32 = 32 * 1024;

/// The streams that one connection may have open.
const MAX_STREAMS: u32 = 256;

/// Streams that the peer may open and reset before they were looked at, and those that
/// it may have us reset: then it gets `ENHANCE_YOUR_CALM` (CVE-2023-44487,
/// CVE-2025-8671).
const MAX_PENDING_RESETS: usize = 20;
const MAX_RESETS_FOR_ERRORS: usize = 128;

/// How long a connection has for its handshake, and to say what it speaks.
const GREETING: Duration = Duration::from_secs(10);

/// What HTTP/2 begins with, and the head of the frame that must follow, in bytes
/// (RFC 9113, 3.4). No request in HTTP/1 is shorter.
const PREFACE: usize = 24 + 9;

/// How long a connection may be silent before it is pinged, and then before it
/// is closed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where calls come in: the gate, and the services behind it.
pub(super) struct Entry {
    pub(super) gate: Gate,
    pub(super) services: Services,
    /// What answers browsers; `None` where nothing does.
    pub(super) web: Option<Web>,
    /// What connections are encrypted with; `None` where they are not.
    pub(super) tls: Option<Arc<Tls>>,
    /// After which a connection takes no more calls.
    pub(super) max_age: Duration,
    /// What its calls in progress then have.
    pub(super) grace: Duration,
}

/// Serves a connection until the peer ends it, it is too old, or the server stops and
/// its calls in progress have finished.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    entry: Arc<Entry>,
    stopping: watch::Receiver<bool>,
) {
    let Some(tls) = entry.tls.clone() else {
        return speak(stream, Peer { address: peer, names: None }, entry, stopping).await;
    };
    let greeted = tokio::select! {
        greeted = time::timeout(GREETING, tls.accept(stream)) => greeted,
        () = stopped(stopping.clone()) => return,
    };
    match greeted {
        Ok(Ok(stream)) => {
            let names = tls::client_names(&stream);
            Box::pin(speak(stream, Peer { address: peer, names }, entry, stopping)).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    entry: Arc<Entry>,
    stopping: watch::Receiver<bool>,
) {
    let (max_age, grace) = (spread(entry.max_age, peer.address), entry.grace);
    let read = Arc::new(AtomicUsize::new(0));
    let stream = TokioIo::new(Counted::new(stream, read.clone()));
    let protocol = protocol(entry.web.is_some());
    let mut connection = pin!(protocol.serve_connection(stream, Calls { entry, peer }));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent(&read) => {
            tracing::debug!("a connection said nothing");
            return;
        }
        () = time::sleep(max_age) => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(grace, connection).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
        () = stopped(stopping.clone()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
    drop(stopping);
}

/// Completes when the peer has not begun to speak in time. Later a connection that
/// says nothing is pinged.
async fn silent(read: &AtomicUsize) {
    time::sleep(GREETING).await;
    if read.load(Ordering::Relaxed) >= PREFACE {
        future::pending::<()>().await;
    }
}

/// Up to a tenth less, so that connections that began together do not end together:
/// their clients' ports differ.
fn spread(age: Duration, peer: SocketAddr) -> Duration {
    age / 1000 * (1000 - u32::from(peer.port() % 100))
}

/// HTTP/2, and HTTP/1 beside it for gRPC-Web alone.
fn protocol(serves_web: bool) -> auto::Builder<TokioExecutor> {
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
        // gRPC has no use for it, and each answer would pay for it.
        .auto_date_header(false);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEPALIVE)
        .max_buf_size(MAX_METADATA_READ as usize);
    if serves_web { builder } else { builder.http2_only() }
}

/// Who is at the other end.
struct Peer {
    address: SocketAddr,
    /// By its certificate, where it brought one.
    names: Option<ClientNames>,
}

/// The calls of one connection.
struct Calls {
    entry: Arc<Entry>,
    peer: Peer,
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (entry, ip) = (self.entry.clone(), self.peer.address.ip());
        if let Some(names) = &self.peer.names {
            request.extensions_mut().insert(names.clone());
        }
        let kind = Kind::of(&request);
        Box::pin(async move {
            Ok(match (kind, &entry.web) {
                (Kind::Grpc, _) => entry.gate.pass(request, ip, &entry.services).await,
                (Kind::Web(content), Some(web)) => {
                    let pass = |request| entry.gate.pass(request, ip, &entry.services).map(Ok);
                    // Boxed, so that a gRPC call does not carry its room.
                    Box::pin(web.call(request, content, service_fn(pass))).await
                }
                (Kind::Preflight, Some(web)) => Box::pin(web.preflight(request)).await,
                _ => refuse(request, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            })
        })
    }
}

/// What a request speaks.
enum Kind {
    Grpc,
    Web(web::Content),
    /// What a browser asks before it calls.
    Preflight,
    /// Nothing of ours. Some of it any page may have a browser send, unasked; gRPC over
    /// HTTP/2 ("Requests", Content-Type) has a server refuse it.
    Other,
}

impl Kind {
    fn of<B>(request: &Request<B>) -> Self {
        let content = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match content.map(|content| content.strip_prefix(b"application/grpc")) {
            Some(Some([] | [b'+' | b';', ..])) if request.version() == Version::HTTP_2 => {
                Self::Grpc
            }
            Some(_) if request.method() == Method::POST => {
                web::Content::of(request.headers()).map_or(Self::Other, Self::Web)
            }
            None if request.method() == Method::OPTIONS => Self::Preflight,
            _ => Self::Other,
        }
    }
}

/// Completes when the server takes no more calls.
pub(super) async fn stopped(mut stopping: watch::Receiver<bool>) {
    stopping.wait_for(|stopping| *stopping).await.ok();
}
