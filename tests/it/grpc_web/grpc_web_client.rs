//! A gRPC-Web client (gRPC's PROTOCOL-WEB), which encodes requests as a browser client does, and
//! parses the responses.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName};
use prost::Message;
use reqwest::{RequestBuilder, Url};
use tonic::{Code, Status};

use crate::harness::{TestApp, reason};

pub const BINARY: &str = "application/grpc-web+proto";
pub const TEXT: &str = "application/grpc-web-text+proto";

/// Flag of a frame that contains trailers.
const TRAILERS: u8 = 0x80;

pub fn method_url(app: &TestApp, method: &str) -> Url {
    format!("http://{}/tenantry.v1.{method}", app.addr).parse().expect("a URL")
}

/// A message in a gRPC frame.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// A call over HTTP/1 with a binary body.
pub fn build_call(app: &TestApp, method: &str, message: &impl Message) -> RequestBuilder {
    let post = reqwest::Client::new().post(method_url(app, method));
    post.header("content-type", BINARY).header("x-grpc-web", "1").body(frame(message))
}

/// A call over HTTP/1 with a base64 body.
pub fn build_text_call(app: &TestApp, method: &str, message: &impl Message) -> RequestBuilder {
    let post = reqwest::Client::new().post(method_url(app, method));
    let body = BASE64_STANDARD.encode(frame(message));
    post.header("content-type", TEXT).header("accept", TEXT).body(body)
}

/// The messages and the status of a response.
#[derive(Debug)]
pub struct GrpcWebResponse {
    pub messages: Vec<Vec<u8>>,
    pub status: Status,
}

/// Sends a call over HTTP/1 and parses the response.
pub async fn send(request: RequestBuilder) -> GrpcWebResponse {
    let response = request.send().await.expect("a response");
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    let body = response.bytes().await.expect("a body");
    match headers.get("content-type") {
        Some(content_type) if content_type == TEXT => {
            GrpcWebResponse::parse(headers, &decode_text(&body))
        }
        content_type => {
            assert_eq!(content_type.expect("a content type"), BINARY);
            GrpcWebResponse::parse(headers, &body)
        }
    }
}

impl GrpcWebResponse {
    /// Parses a body. The trailers of a response without a message arrive as headers.
    pub fn parse(mut trailers: HeaderMap, mut body: &[u8]) -> Self {
        let mut messages = Vec::new();
        while let Some((frame_header, rest)) = body.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([
                frame_header[1],
                frame_header[2],
                frame_header[3],
                frame_header[4],
            ]);
            let (content, rest) = rest.split_at(usize::try_from(length).expect("a length"));
            if frame_header[0] & TRAILERS == 0 {
                messages.push(content.to_vec());
            } else {
                let lines = str::from_utf8(content).expect("text").lines();
                let pairs = lines.filter_map(|line| line.split_once(':'));
                trailers.extend(pairs.map(|(name, value)| {
                    let name: HeaderName = name.parse().expect("a name");
                    (name, value.trim().parse().expect("a value"))
                }));
            }
            body = rest;
        }
        let status = Status::from_header_map(&trailers).expect("a status");
        Self { messages, status }
    }

    /// The only message of a successful response.
    pub fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status.code(), Code::Ok, "{:?}", self.status);
        assert_eq!(self.messages.len(), 1);
        M::decode(&*self.messages[0]).expect("a message")
    }

    /// Code and reason of a refusal.
    pub fn refusal(&self) -> (Code, String) {
        assert!(self.messages.is_empty());
        (self.status.code(), reason(&self.status))
    }
}

/// Decodes base64. Each frame may be encoded separately, so padding may be anywhere in the text.
fn decode_text(text: &[u8]) -> Vec<u8> {
    let chunks = text.chunks(4).map(|chunk| BASE64_STANDARD.decode(chunk).expect("base64"));
    chunks.flatten().collect()
}
