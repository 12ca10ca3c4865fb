//! The request's message, whole.

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use tonic::{Status, body::Body};

use crate::{error, proto::v1::ErrorReason};

/// What stands before a message: whether it is compressed, and its length (gRPC over
/// HTTP/2, `Length-Prefixed-Message`).
const PREFIX: usize = 5;

/// Waits until all of a request's body is there. Every method takes one message.
///
/// # Errors
/// `OUT_OF_RANGE` when it has more than a message of `limit` bytes; CANCELLED when the
/// rest never comes.
pub(super) async fn gather(body: Incoming, limit: usize) -> Result<Body, Status> {
    let mut body = Limited::new(body, limit + PREFIX);
    let first = next(&mut body, limit).await?.unwrap_or_default();
    // Most messages come in one piece, which is not copied.
    if body.is_end_stream() {
        return Ok(Body::new(Full::new(first)));
    }
    let mut whole = Vec::from(first);
    while let Some(more) = next(&mut body, limit).await? {
        whole.extend_from_slice(&more);
    }
    Ok(Body::new(Full::new(Bytes::from(whole))))
}

/// The next piece. Trailers are no part of the message.
async fn next(body: &mut Limited<Incoming>, limit: usize) -> Result<Option<Bytes>, Status> {
    match body.frame().await.transpose() {
        Ok(frame) => Ok(frame.map(|frame| frame.into_data().unwrap_or_default())),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the message has more than {limit} bytes");
            Err(error::status(ErrorReason::MessageTooLarge, &text))
        }
        Err(_) => Err(error::status(ErrorReason::Cancelled, "the call was given up")),
    }
}
