//! The request's message, whole.

use http_body_util::{BodyExt, LengthLimitError, Limited};
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
pub(super) async fn gather(body: Body, limit: usize) -> Result<Body, Status> {
    match Limited::new(body, limit + PREFIX).collect().await {
        Ok(whole) => Ok(Body::new(whole)),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the message has more than {limit} bytes");
            Err(error::status(ErrorReason::MessageTooLarge, &text))
        }
        Err(_) => Err(error::status(ErrorReason::Cancelled, "the call was given up")),
    }
}
