//! gzip compression of messages (gRPC, "Compression"): of requests, and of large responses.
//!
//! Tonic can do both for a service, but not as needed here. Its limit after decompression is the
//! same for all methods of a service. And it compresses every response, also one of a few bytes:
//! many clients accept gzip by default, and each decision would take longer and be larger.

use std::io::{Read, Write};

use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tonic::{Status, body::Body, metadata::AsciiMetadataValue};

use super::{
    message::{self, PREFIX_BYTES},
    unsent,
};
use crate::{concurrency::pace::Pace, error, proto::v1::ErrorReason};

/// The header with the encoding of the messages whose compression flag is set.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The header with the encodings that the sender can decode.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The encodings of this server, as a value of `grpc-accept-encoding`.
const SUPPORTED_ENCODINGS: &str = "gzip,identity";

/// Minimum size of a response's message that is compressed, in bytes. A smaller message fits into
/// one packet anyway.
const MIN_COMPRESSED: usize = 1024;

/// Number of bytes that are compressed or decompressed between two pauses.
const STEP: usize = 32 * 1024;

/// The encoding of a request's message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// Checks the header `grpc-encoding`.
///
/// # Errors
/// Returns UNIMPLEMENTED with the supported encodings for any other encoding.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"gzip") => Ok(()),
        Some(_) => {
            let text = "the encoding of the message is not supported; use gzip or identity";
            let mut status = error::status(ErrorReason::EncodingUnsupported, text);
            let supported = AsciiMetadataValue::from_static(SUPPORTED_ENCODINGS);
            status.metadata_mut().insert(ACCEPT_ENCODING, supported);
            Err(status)
        }
    }
}

/// Removes the header `grpc-encoding`, because the services get messages without compression.
/// Returns the encoding, which [`check_encoding`] has checked.
pub(super) fn take_encoding(headers: &mut HeaderMap) -> Encoding {
    match headers.remove(ENCODING) {
        Some(value) if value == "gzip" => Encoding::Gzip,
        _ => Encoding::Identity,
    }
}

/// Whether the client can decode responses that are compressed with gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|encoding| encoding.trim() == "gzip")
}

/// Whether the compression flag in the prefix of `message` is set. False for an invalid prefix: the
/// service refuses such a message.
pub(super) fn is_compressed(message: &[u8]) -> bool {
    let Some((&[flag, a, b, c, d], data)) = message.split_first_chunk::<PREFIX_BYTES>() else {
        return false;
    };
    flag == 1 && usize::try_from(u32::from_be_bytes([a, b, c, d])) == Ok(data.len())
}

/// A body that decompresses `message`, which includes its prefix, when the service reads the body.
pub(super) fn decompressing_body(message: Bytes, limit: usize) -> Body {
    Body::new(StreamBody::new(stream::once(async move {
        let message = decompress(&message, limit).await?;
        message.map(Frame::data).ok_or_else(|| message::too_large(limit))
    })))
}

/// Decompresses `message`, which includes its prefix. `None` when the message has more than `limit`
/// bytes without compression: the decompression stops there.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` for data that is not one gzip member.
pub(super) async fn decompress(message: &[u8], limit: usize) -> Result<Option<Bytes>, Status> {
    let mut decoder = GzDecoder::new(message.get(PREFIX_BYTES..).unwrap_or_default());
    let mut plain = vec![0; PREFIX_BYTES];
    let mut pace = Pace::new();
    loop {
        // One byte more than the limit is enough to see that the message is too large.
        let step = (limit + PREFIX_BYTES + 1 - plain.len()).min(STEP);
        let result = decoder.by_ref().take(step as u64).read_to_end(&mut plain);
        let is_complete = result.map_err(|_| error::undecodable())? < step;
        let length = plain.len() - PREFIX_BYTES;
        if length > limit {
            return Ok(None);
        }
        if is_complete {
            if !decoder.get_ref().is_empty() {
                return Err(error::undecodable());
            }
            let length = u32::try_from(length).map_err(|_| message::too_large(limit))?;
            plain[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
            return Ok(Some(plain.into()));
        }
        pace.pause().await;
    }
}

/// Encodes the message of a unary call's response. Compresses a large message if the client accepts
/// gzip.
pub(super) async fn encode(response: Response<Body>, accepts_gzip: bool) -> Response<Body> {
    if response.body().is_end_stream() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let (mut message, trailers) = match unsent::collect(body).await {
        Ok(collected) => collected,
        Err(status) => return status.into_http(),
    };
    if accepts_gzip
        && message.len() >= PREFIX_BYTES + MIN_COMPRESSED
        && let Some(compressed) = gzip(&message[PREFIX_BYTES..]).await
    {
        message = compressed;
        head.headers.insert(ENCODING, HeaderValue::from_static("gzip"));
    }
    Response::from_parts(head, unsent::body_of(message, trailers))
}

/// Compresses data, and adds the prefix of a compressed message. `None` when this fails.
async fn gzip(data: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(vec![0; PREFIX_BYTES], Compression::fast());
    let mut pace = Pace::new();
    for step in data.chunks(STEP) {
        encoder.write_all(step).ok()?;
        pace.pause().await;
    }
    let mut message = encoder.finish().ok()?;
    let length = u32::try_from(message.len() - PREFIX_BYTES).ok()?;
    message[0] = 1;
    message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Some(message.into())
}
