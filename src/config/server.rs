//! Settings of the server: addresses, TLS and limits.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::HeaderValue;
use url::Url;

use super::values::{DAY, Reader, thread_count, to_usize};

/// Addresses, TLS and limits of the server.
pub struct Server {
    /// The address on which gRPC is served.
    pub addr: SocketAddr,
    /// The address on which metrics, probes and public keys are served over HTTP; `None` when
    /// HTTP is not served.
    pub http_addr: Option<SocketAddr>,
    /// The TLS files of gRPC; `None` without TLS.
    pub tls: Option<TlsPaths>,
    /// Number of threads that serve gRPC.
    pub threads: usize,
    /// Limits of connections.
    pub connections: Connections,
    /// Maximum size of a request message, in bytes.
    pub max_message_bytes: usize,
    /// Maximum duration of a request.
    pub request_timeout: Duration,
    /// Maximum number of requests in progress.
    pub max_requests: usize,
    /// How long the server waits for requests in progress when it stops.
    pub shutdown_grace: Duration,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Whether Envoy's external authorization is served.
    pub envoy: bool,
    /// The origins (RFC 6454) of the web pages that may use gRPC-Web; `None` when gRPC-Web is not
    /// served.
    pub web_origins: Option<Vec<HeaderValue>>,
}

/// The files of TLS, in PEM.
#[derive(Clone, Debug)]
pub struct TlsPaths {
    /// The server's certificate and its chain.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The CAs of client certificates; `None` when clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Maximum number of open connections.
    pub total: usize,
    /// Maximum number of open connections from one IPv4 address or one IPv6 /64.
    pub per_address: usize,
    /// Age from which a connection accepts no more calls.
    pub max_age: Duration,
}

/// The protocols that may be served without TLS on addresses other than loopback.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Plaintext {
    /// Plaintext is allowed only on loopback addresses.
    #[default]
    LoopbackOnly,
    /// HTTP: metrics, probes and public keys.
    Http,
    /// HTTP and gRPC.
    All,
}

impl Server {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let tls = TlsPaths::read(reader);
        let plaintext = Plaintext::read(reader);
        let addr: Option<SocketAddr> = reader.read("GRPC_ADDR", |text| {
            let addr = parse_address(text)?;
            if tls.is_some() || addr.ip().is_loopback() || plaintext == Plaintext::All {
                return Ok(Some(addr));
            }
            Err("is not a loopback address: set TLS_CERT_PATH and TLS_KEY_PATH, or set \
                 PLAINTEXT=all"
                .into())
        });
        let http_addr = |text: &str| match (text, plaintext) {
            ("off", _) => Ok(None),
            (text, Plaintext::LoopbackOnly) if !parse_address(text)?.ip().is_loopback() => {
                Err("is not a loopback address, and HTTP has no TLS: set PLAINTEXT=http".into())
            }
            (text, _) => parse_address(text).map(Some),
        };
        Self {
            // This placeholder address is never used, because `Reader::finish` fails when the
            // address is invalid.
            addr: addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            http_addr: reader.read("HTTP_ADDR", http_addr),
            tls,
            connections: Connections {
                total: to_usize(reader.number("MAX_CONNECTIONS", 1, 1_000_000)),
                per_address: to_usize(reader.number("MAX_CONNECTIONS_PER_ADDRESS", 1, 1_000_000)),
                max_age: reader.duration("MAX_CONNECTION_AGE", 366 * DAY),
            },
            threads: thread_count(reader.number("SERVING_THREADS", 0, 1024)),
            max_message_bytes: to_usize(reader.number("MAX_MESSAGE_BYTES", 1024, 64 << 20)),
            request_timeout: reader.duration("REQUEST_TIMEOUT", DAY),
            max_requests: to_usize(reader.number("MAX_REQUESTS", 1, 1_000_000)),
            shutdown_grace: reader.duration("SHUTDOWN_GRACE", DAY),
            reflection: reader.choice("REFLECTION", "on", "off"),
            envoy: reader.choice("ENVOY_AUTHORIZATION", "on", "off"),
            web_origins: reader.read("GRPC_WEB_ORIGINS", |text| match text {
                "off" => Ok(None),
                text => text.split(',').map(parse_origin).collect::<Result<_, _>>().map(Some),
            }),
        }
    }
}

impl TlsPaths {
    /// Reads the TLS paths. The certificate and its key must both be set or both be off.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let cert = reader.path_or_off("TLS_CERT_PATH");
        let client_ca = reader.path_or_off("TLS_CLIENT_CA_PATH");
        let key: Option<PathBuf> = reader.read("TLS_KEY_PATH", |text| match (&cert, text) {
            (Some(_), "off") => Err("must be set, because TLS_CERT_PATH is set".into()),
            (None, "off") if client_ca.is_some() => {
                Err("must be set, with TLS_CERT_PATH, because TLS_CLIENT_CA_PATH is set".into())
            }
            (None, "off") => Ok(None),
            (None, _) => Err("is set, but TLS_CERT_PATH is not set".into()),
            (Some(_), path) => Ok(Some(path.into())),
        });
        Some(Self { cert: cert?, key: key?, client_ca })
    }
}

impl Plaintext {
    fn read(reader: &mut Reader<'_>) -> Self {
        reader.read("PLAINTEXT", |text| match text {
            "loopback" => Ok(Self::LoopbackOnly),
            "http" => Ok(Self::Http),
            "all" => Ok(Self::All),
            _ => Err("must be loopback, http or all".into()),
        })
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address like 127.0.0.1:50051".into())
}

/// Parses an origin. The origin must be spelled as browsers send it, because origins are compared
/// as text.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let text = text.trim();
    let is_origin = Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.origin().ascii_serialization() == text
            && !text.contains('*')
    });
    let value = HeaderValue::from_str(text).ok().filter(|_| is_origin);
    value.ok_or_else(|| {
        "must be origins as browsers send them, like https://app.example.com,http://localhost:3000, \
         or off"
            .to_owned()
    })
}
