//! HTTP/2 frames, encoded by hand (RFC 9113, sections 4.1 and 6).

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

// Types of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

// Flags.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

// An error code.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Connection preface with an empty SETTINGS frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header block of a call of a public method, as literals without indexing (RFC 7541, section
/// 6.2.2).
pub fn call_headers() -> Vec<u8> {
    call_headers_with(&[])
}

/// Header block of a call of the method with this path.
pub fn call_headers_to(path: &str) -> Vec<u8> {
    encode_headers(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// Header block of a call of a public method, with more metadata.
pub fn call_headers_with(metadata: &[(&str, &str)]) -> Vec<u8> {
    let metadata = [&[("content-type", "application/grpc"), ("te", "trailers")], metadata].concat();
    request_headers("POST", &metadata)
}

/// Header block of a request with any HTTP method.
pub fn request_headers(method: &str, metadata: &[(&str, &str)]) -> Vec<u8> {
    let pseudo_headers = [
        (":method", method),
        (":scheme", "http"),
        (":path", "/tenantry.v1.AuthService/GetJwks"),
        (":authority", "localhost"),
    ];
    encode_headers(&[&pseudo_headers, metadata].concat())
}

/// Encodes a header block (RFC 7541) with each field as a literal.
fn encode_headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [*name, *value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A connection, or its read half.
pub struct Peer<S = TcpStream> {
    pub stream: S,
}

impl Peer {
    /// Connects and sends the preface.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::send_preface(TcpStream::connect(addr).await.expect("connected")).await
    }

    /// Connects from another network than all other clients of the server, and sends the preface.
    pub async fn connect_from_other_network(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 9, 9, 9], 0).into()).expect("an address");
        Self::send_preface(socket.connect(addr).await.expect("connected")).await
    }

    async fn send_preface(mut stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(PREFACE).await.expect("sent");
        Self { stream }
    }

    /// Splits the connection into its read half and its write half.
    pub fn split(self) -> (Peer<OwnedReadHalf>, OwnedWriteHalf) {
        let (stream, writer) = self.stream.into_split();
        (Peer { stream }, writer)
    }

    /// Sends bytes. Returns false when the server has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }
}

impl<S: AsyncRead + Unpin> Peer<S> {
    /// Reads until the connection ends. Returns the error code of its GOAWAY, or `None` without a
    /// GOAWAY.
    pub async fn read_goaway(&mut self) -> Option<u32> {
        let mut error_code = None;
        while let Some((kind, _, _, payload)) = self.next_frame().await {
            if kind == GOAWAY {
                error_code = payload[4..8].try_into().ok().map(u32::from_be_bytes);
            }
        }
        error_code
    }

    /// The next frame as kind, flags, stream and payload. `None` when the connection has ended.
    pub async fn next_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a short payload")];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        Some((header[3], header[4], stream, payload))
    }
}
