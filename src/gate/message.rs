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
pub(super) const PREFIX_BYTES: usize = 5;

/// Maximum number of bytes of a refused call's body that are read and discarded.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;

/// Maximum time for which a refused call's body is read and discarded.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(2);

/// A request's body: the body of an HTTP/2 request, or a translation from gRPC-Web.
pub trait RequestBody:
    HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static
{
}

impl<B> RequestBody for B where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static
{
}

/// Reads a request's whole body, which contains exactly one message.
///
/// # Errors
/// Returns `OUT_OF_RANGE` when the body is longer than a message of `limit` bytes,
/// `INVALID_ARGUMENT` when the gRPC-Web body can't be translated, and CANCELLED when the body ends
/// early.
pub(super) async fn read(body: &mut impl RequestBody, limit: usize) -> Result<Bytes, Status> {
    let mut body = Limited::new(body, limit + PREFIX_BYTES);
    let first_piece = next_piece(&mut body, limit).await?.unwrap_or_default();
    // Most messages arrive in one frame, which is returned without a copy.
    if body.is_end_stream() {
        return Ok(first_piece);
    }
    let mut message = Vec::from(first_piece);
    while let Some(piece) = next_piece(&mut body, limit).await? {
        message.extend_from_slice(&piece);
    }
    Ok(Bytes::from(message))
}

/// The error for a message of more than `limit` bytes: `OUT_OF_RANGE`.
pub(super) fn too_large(limit: usize) -> Status {
    let text = format!("the message has more than {limit} bytes");
    error::status(ErrorReason::MessageTooLarge, &text)
}

/// Reads and discards the rest of a refused call's body. Usually the client has already sent the
/// message. If the server reset the stream, the message would arrive at a closed stream. This would
/// be a protocol error, and after a limited number of such errors the connection is closed.
pub fn discard_body(body: impl RequestBody) {
    if body.is_end_stream() {
        return;
    }
    let mut body = Limited::new(body, MAX_DISCARDED_BYTES);
    tokio::spawn(time::timeout(MAX_DISCARD_TIME, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}

/// Reads the next piece of the body. Trailers are not part of the message: they give an empty
/// piece.
async fn next_piece(
    body: &mut Limited<&mut impl RequestBody>,
    limit: usize,
) -> Result<Option<Bytes>, Status> {
    match body.frame().await.transpose() {
        Ok(frame) => Ok(frame.map(|frame| frame.into_data().unwrap_or_default())),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        // The translation from gRPC-Web failed, because the body is not base64. If the client
        // aborted the body, the error is the same, but then no client waits for the response.
        Err(error) if error.is::<Status>() => Err(error::undecodable()),
        Err(_) => Err(error::status(ErrorReason::Cancelled, "the client cancelled the call")),
    }
}
