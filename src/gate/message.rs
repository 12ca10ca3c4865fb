//! The request's message, whole.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Bytes};
use tokio::time;
use tonic::Status;
use tower::BoxError;

use crate::{error, proto::v1::ErrorReason};

/// What stands before a message: whether it is compressed, and its length (gRPC over
/// HTTP/2, `Length-Prefixed-Message`).
const PREFIX: usize = 5;

/// What a call that was refused may still send, in bytes, and for how long.
const MAX_REST: usize = 64 * 1024;
const MAX_REST_TIME: Duration = Duration::from_secs(2);

/// A request's body, as HTTP/2 has it or as gRPC-Web was translated to it.
pub trait RequestBody:
    HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static
{
}

impl<B> RequestBody for B where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static
{
}

/// Waits until all of a request's body is there. Every method takes one message.
///
/// # Errors
/// `OUT_OF_RANGE` when it has more than a message of `limit` bytes; `INVALID_ARGUMENT`
/// when gRPC-Web can't be translated; CANCELLED when the rest never comes.
pub(super) async fn gather(body: &mut impl RequestBody, limit: usize) -> Result<Bytes, Status> {
    let mut body = Limited::new(body, limit + PREFIX);
    let first = next(&mut body, limit).await?.unwrap_or_default();
    // Most messages come in one piece, which is not copied.
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = Vec::from(first);
    while let Some(more) = next(&mut body, limit).await? {
        whole.extend_from_slice(&more);
    }
    Ok(Bytes::from(whole))
}

/// Takes in and forgets what a call that was refused still sends. Its message is on its
/// way as a rule; a stream that were reset would have it arrive where nothing is, and
/// of such mistakes a connection has only so many before it is closed.
pub fn drain(body: impl RequestBody) {
    if body.is_end_stream() {
        return;
    }
    let mut body = Limited::new(body, MAX_REST);
    tokio::spawn(time::timeout(MAX_REST_TIME, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}

/// The next piece. Trailers are no part of the message.
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
        // The translation's, whose text is no base64. What ends on its way looks the same to
        // it, but then nobody waits for the answer.
        Err(error) if error.is::<Status>() => Err(error::undecodable()),
        Err(_) => Err(error::status(ErrorReason::Cancelled, "the call was given up")),
    }
}
