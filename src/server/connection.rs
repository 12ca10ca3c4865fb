//! One connection: HTTP/2 from its first byte to an orderly end.

use std::{
    convert::Infallible, future::Future, net::SocketAddr, pin::Pin, pin::pin, sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::watch};
use tonic::body::Body;

use super::{cores::stopped, services::Services};
use crate::gate::Gate;

/// The metadata of a call that is read at all, in bytes. The gate takes less, and
/// says so; beyond this the connection answers, in HTTP's words (431).
const MAX_METADATA_READ: u32 = 32 * 1024;

/// The streams that one connection may have open.
const MAX_STREAMS: u32 = 1024;

/// How long a connection may be silent before it is pinged, and then before it
/// is closed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where calls come in: the gate, and the services behind it.
pub(super) struct Entry {
    pub(super) gate: Gate,
    pub(super) services: Services,
}

/// Serves a connection until the peer ends it, or the server stops and its calls
/// in progress have finished.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    entry: Arc<Entry>,
    stopping: watch::Receiver<bool>,
) {
    let calls = Calls { entry, peer };
    let mut connection = pin!(protocol().serve_connection(TokioIo::new(stream), calls));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
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

fn protocol() -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_header_list_size(MAX_METADATA_READ)
        .max_concurrent_streams(MAX_STREAMS)
        // gRPC has no use for it, and each answer would pay for it.
        .auto_date_header(false);
    http2
}

/// The calls of one connection.
struct Calls {
    entry: Arc<Entry>,
    peer: SocketAddr,
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (entry, peer) = (self.entry.clone(), self.peer);
        Box::pin(async move { Ok(entry.gate.pass(request, peer.ip(), &entry.services).await) })
    }
}
