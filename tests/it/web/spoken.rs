//! gRPC-Web encoded by hand (gRPC's PROTOCOL-WEB): the requests of a browser, and the answers
//! that it reads.

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

pub fn url(app: &TestApp, method: &str) -> Url {
    format!("http://{}/tenantry.v1.{method}", app.addr).parse().expect("a URL")
}

/// A message in a gRPC frame.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short");
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// A call over HTTP/1.
pub fn call(app: &TestApp, method: &str, message: &impl Message) -> RequestBuilder {
    let post = reqwest::Client::new().post(url(app, method));
    post.header("content-type", BINARY).header("x-grpc-web", "1").body(framed(message))
}

/// The same call with a base64 body.
pub fn call_in_text(app: &TestApp, method: &str, message: &impl Message) -> RequestBuilder {
    let post = reqwest::Client::new().post(url(app, method));
    let body = BASE64_STANDARD.encode(framed(message));
    post.header("content-type", TEXT).header("accept", TEXT).body(body)
}

/// An answer: its messages and its status.
#[derive(Debug)]
pub struct Answer {
    pub messages: Vec<Vec<u8>>,
    pub status: Status,
}

impl Answer {
    pub async fn to(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("sent");
        assert_eq!(response.status(), 200);
        let head = response.headers().clone();
        let body = response.bytes().await.expect("a body");
        match head.get("content-type") {
            Some(kind) if kind == TEXT => Self::read(head, &decoded(&body)),
            kind => {
                assert_eq!(kind.expect("a kind"), BINARY);
                Self::read(head, &body)
            }
        }
    }

    /// Parses a body. When an answer has only trailers, they arrive as headers.
    pub fn read(mut ended: HeaderMap, mut body: &[u8]) -> Self {
        let mut messages = Vec::new();
        while let Some((head, rest)) = body.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let (frame, rest) = rest.split_at(usize::try_from(length).expect("a length"));
            if head[0] & TRAILERS == 0 {
                messages.push(frame.to_vec());
            } else {
                let lines = str::from_utf8(frame).expect("text").lines();
                let pairs = lines.filter_map(|line| line.split_once(':'));
                ended.extend(pairs.map(|(name, value)| {
                    let name: HeaderName = name.parse().expect("a name");
                    (name, value.trim().parse().expect("a value"))
                }));
            }
            body = rest;
        }
        let status = Status::from_header_map(&ended).expect("a status");
        Self { messages, status }
    }

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

/// Each frame may be encoded separately, so the padding may be anywhere.
fn decoded(text: &[u8]) -> Vec<u8> {
    let pieces = text.chunks(4).map(|piece| BASE64_STANDARD.decode(piece).expect("base64"));
    pieces.flatten().collect()
}
