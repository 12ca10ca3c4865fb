//! gRPC-Web for browsers, and CORS for the allowed origins.

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, service_fn};
use tower_http::{cors::CorsLayer, timeout::TimeoutBody};

use crate::gate;

/// Request headers that a page may send in addition to the CORS-safelisted ones (Fetch
/// standard, section 4.8: CORS-unsafe request headers).
const ALLOWED_HEADERS: [HeaderName; 11] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("baggage"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-organization-slug"),
    gate::REQUEST_ID,
    HeaderName::from_static("x-tenant-id"),
    HeaderName::from_static("x-user-agent"),
];

/// Response headers that a page may read.
const EXPOSED_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
    gate::REQUEST_ID,
];

/// Time that a browser may cache a preflight response. Chromium caches it for no longer.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// Maximum time between two frames of a request's body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The encoding of gRPC-Web messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Binary,
    /// Base64.
    Text,
}

impl Content {
    /// The encoding of a request's body; `None` when it is not gRPC-Web with protobuf.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let said = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        // Parameters have no meaning here (RFC 9110, section 8.3.1).
        let kind = said.split(';').next().unwrap_or(said).trim().to_ascii_lowercase();
        match kind.strip_suffix("+proto").unwrap_or(&kind) {
            "application/grpc-web" => Some(Self::Binary),
            "application/grpc-web-text" => Some(Self::Text),
            _ => None,
        }
    }

    /// The encoding of the response: the request's, unless the `accept` header names the other.
    fn accepted(self, headers: &HeaderMap) -> Self {
        let named = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match named {
            Some(named) if named.contains("application/grpc-web-text") => Self::Text,
            Some(named) if named.contains("application/grpc-web") => Self::Binary,
            _ => self,
        }
    }

    /// The content type as tonic writes it.
    const fn name(self) -> HeaderValue {
        match self {
            Self::Binary => HeaderValue::from_static("application/grpc-web+proto"),
            Self::Text => HeaderValue::from_static("application/grpc-web-text+proto"),
        }
    }
}

/// Serves gRPC-Web and CORS preflights.
pub(super) struct Web {
    origins: Vec<HeaderValue>,
    /// Without credentials: tokens are not cookies, which a browser adds by itself.
    cors: CorsLayer,
}

impl Web {
    /// Allows pages of these origins.
    pub(super) fn for_pages_of(origins: Vec<HeaderValue>) -> Self {
        let cors = CorsLayer::new()
            .allow_origin(origins.clone())
            .allow_methods([Method::POST])
            .allow_headers(ALLOWED_HEADERS)
            .expose_headers(EXPOSED_HEADERS)
            .max_age(PREFLIGHT_MAX_AGE);
        Self { origins, cors }
    }

    /// Translates a call for a service, and the service's response back.
    pub(super) async fn call<S>(
        &self,
        mut request: Request<Incoming>,
        content: Content,
        service: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        // With DNS rebinding a browser sends no CORS preflight, so the Origin header is checked
        // here too.
        let origin = request.headers().get(header::ORIGIN);
        if origin.is_some_and(|origin| !self.origins.contains(origin)) {
            return refuse(request, StatusCode::FORBIDDEN);
        }
        let accepted = content.accepted(request.headers());
        request.headers_mut().insert(header::CONTENT_TYPE, content.name());
        request.headers_mut().insert(header::ACCEPT, accepted.name());
        let request = request.map(|body| TimeoutBody::new(BODY_IDLE_TIMEOUT, body));
        let mut translated = self.cors.layer(GrpcWebLayer::new().layer(service));
        let Ok(response) = translated.call(request).await;
        response
    }

    /// Answers a CORS preflight.
    pub(super) async fn preflight(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        gate::discard_body(body);
        let nothing = |_| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let mut asked = self.cors.layer(service_fn(nothing));
        let Ok(response) = asked.call(Request::from_parts(head, Body::empty())).await;
        response
    }
}

/// Answers a request that is not a call with an HTTP status.
pub(super) fn refuse(request: Request<Incoming>, status: StatusCode) -> Response<Body> {
    gate::discard_body(request.into_body());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
