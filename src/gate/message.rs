//! Reads the whole message of a request.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Bytes};
use tokio::time;
use tonic::Status;
use tower::BoxError;

use crate::{error, proto::v1::ErrorReason};

/// Length of the prefix of a message: the compression flag and the message length (gRPC over
/// HTTP/2, `Length-Prefixed-Message`).
const PREFIX: usize = 5;

/// Limits for reading the rest of a refused call's body: bytes, and time.
const MAX_REST: usize = 64 * 1024;
const MAX_REST_TIME: Duration = Duration::from_secs(2);

/// A request's body: HTTP/2 directly, or translated from gRPC-Web.
pub trait RequestBody:
    HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static
{
}

impl<B> RequestBody for B where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static
{
}

/// Reads a request's whole body. Every method takes exactly one message.
///
/// # Errors
/// `OUT_OF_RANGE` when the body is longer than a message of `limit` bytes; `INVALID_ARGUMENT`
/// when the gRPC-Web body cannot be translated; CANCELLED when the body ends early.
pub(super) async fn gather(body: &mut impl RequestBody, limit: usize) -> Result<Bytes, Status> {
    let mut body = Limited::new(body, limit + PREFIX);
    let first = next(&mut body, limit).await?.unwrap_or_default();
    // Most messages come in one frame, which is returned without a copy.
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = Vec::from(first);
    while let Some(more) = next(&mut body, limit).await? {
        whole.extend_from_slice(&more);
    }
    Ok(Bytes::from(whole))
}

/// Reads and discards the rest of a refused call's body. The message is usually on its way
/// already. If the stream were reset, the message would arrive at a closed stream, which is a
/// protocol error, and a connection is closed after a limited number of such errors.
pub fn discard_body(body: impl RequestBody) {
    if body.is_end_stream() {
        return;
    }
    let mut body = Limited::new(body, MAX_REST);
    tokio::spawn(time::timeout(MAX_REST_TIME, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}

/// The next piece of the body. Trailers are not part of the message.
async fn next(
    body: &mut Limited<&mut impl RequestBody>,
    limit: usize,
) -> Result<Option<Bytes>, Status> {
    match body.frame().await.transpose() {
        Ok(frame) => Ok(frame.map(|frame| frame.into_data().unwrap_or_default())),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the message has more than {limit} bytes");
            Err(error::status(ErrorReason::MessageTooLarge, &text))
        }
        // The gRPC-Web translation failed: its text is not base64. A body that the client cut
        // off gives the same error, but then nobody waits for the answer.
        Err(error) if error.is::<Status>() => Err(error::undecodable()),
        Err(_) => Err(error::status(ErrorReason::Cancelled, "the client cancelled the call")),
    }
}
