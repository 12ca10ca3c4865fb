//! HTTP/2 connection under tonic's client.
//!
//! Tonic's own channel passes each call through two queues. The queues cost the load generator more
//! CPU time than a minimal server ([`crate::bare`]) uses for the call, so the benchmark would
//! measure the load generator. `Connection` passes calls directly to HTTP/2.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{Request, Response, Uri};
use http_body::{Body as HttpBody, Frame};
use tokio::net::TcpStream;
use tonic::{body::Body, client::Grpc};
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Flow-control window, in bytes. Larger than every response, so that flow control does not limit
/// the calls.
const WINDOW: u32 = 4 << 20;

/// A connection. A clone is cheap.
#[derive(Clone)]
pub(super) struct Connection(SendRequest<Bytes>);

/// Opens connections. For each connection, a task of the current runtime does its I/O.
///
/// # Errors
/// Returns an error when the server does not answer.
pub(super) async fn open(addr: SocketAddr, count: usize) -> anyhow::Result<Vec<Grpc<Connection>>> {
    let origin: Uri = format!("http://{addr}").parse()?;
    let mut connections = Vec::new();
    for _ in 0..count {
        let stream =
            TcpStream::connect(addr).await.with_context(|| format!("can't connect to {addr}"))?;
        stream.set_nodelay(true)?;
        let (request_sender, driver) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake::<_, Bytes>(stream)
            .await?;
        // When the connection ends, its calls fail, so the driver's result is not needed.
        tokio::spawn(async { driver.await.ok() });
        connections.push(Grpc::with_origin(Connection(request_sender), origin.clone()));
    }
    Ok(connections)
}

impl Service<Request<Body>> for Connection {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut request_sender = self.0.clone();
        let (parts, mut body) = request.into_parts();
        Box::pin(async move {
            let (response, mut body_sender) =
                request_sender.send_request(Request::from_parts(parts, ()), false)?;
            let mut next_data = next_frame(&mut body).await?;
            while let Some(data) = next_data {
                // The last data frame ends the stream, as with other clients.
                next_data = next_frame(&mut body).await?;
                body_sender.send_data(data, next_data.is_none())?;
            }
            Ok(response.await?.map(ResponseBody))
        })
    }
}

async fn next_frame(body: &mut Body) -> Result<Option<Bytes>, BoxError> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()?;
    Ok(frame.and_then(|frame| frame.into_data().ok()))
}

/// Body of a response.
pub(super) struct ResponseBody(RecvStream);

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.0.poll_data(cx)) {
            Some(Ok(data)) => {
                self.0.flow_control().release_capacity(data.len())?;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(self.0.poll_trailers(cx))?;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }
}
