//! Browsers: gRPC-Web, and pages of which origins may use it.

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, service_fn};
use tower_http::{cors::CorsLayer, timeout::TimeoutBody};

use crate::gate;

/// What a page may send beside what any may (Fetch, 4.8: CORS-unsafe request headers).
const SENT: [HeaderName; 11] = [
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

/// What it may read of an answer.
const READ: [HeaderName; 4] = [
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
    gate::REQUEST_ID,
];

/// How long a browser may remember what it asked. None does for longer.
const REMEMBERED: Duration = Duration::from_hours(2);

/// How long a request's body may stand still.
const STANDSTILL: Duration = Duration::from_secs(30);

/// How messages are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Binary,
    /// As base64.
    Text,
}

impl Content {
    /// What a request says of its body; `None` where that is no gRPC-Web with protobuf.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let said = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        // Parameters say nothing that counts here (RFC 9110, 8.3.1).
        let kind = said.split(';').next().unwrap_or(said).trim().to_ascii_lowercase();
        match kind.strip_suffix("+proto").unwrap_or(&kind) {
            "application/grpc-web" => Some(Self::Binary),
            "application/grpc-web-text" => Some(Self::Text),
            _ => None,
        }
    }

    /// What the answer should be: as it was asked, unless it names the other.
    fn accepted(self, headers: &HeaderMap) -> Self {
        let named = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match named {
            Some(named) if named.contains("application/grpc-web-text") => Self::Text,
            Some(named) if named.contains("application/grpc-web") => Self::Binary,
            _ => self,
        }
    }

    /// As tonic knows it.
    const fn name(self) -> HeaderValue {
        match self {
            Self::Binary => HeaderValue::from_static("application/grpc-web+proto"),
            Self::Text => HeaderValue::from_static("application/grpc-web-text+proto"),
        }
    }
}

/// What browsers are answered by.
pub(super) struct Web {
    origins: Vec<HeaderValue>,
    /// Without credentials: tokens are no cookies, which a browser would add by itself.
    cors: CorsLayer,
}

impl Web {
    /// For pages of these origins.
    pub(super) fn for_pages_of(origins: Vec<HeaderValue>) -> Self {
        let cors = CorsLayer::new()
            .allow_origin(origins.clone())
            .allow_methods([Method::POST])
            .allow_headers(SENT)
            .expose_headers(READ)
            .max_age(REMEMBERED);
        Self { origins, cors }
    }

    /// Translates a call for a service, and its answer back.
    pub(super) async fn call<S>(
        &self,
        mut request: Request<Incoming>,
        content: Content,
        service: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        // A browser asks first, but where a page's own name has come to lead here.
        let origin = request.headers().get(header::ORIGIN);
        if origin.is_some_and(|origin| !self.origins.contains(origin)) {
            return refuse(request, StatusCode::FORBIDDEN);
        }
        let accepted = content.accepted(request.headers());
        request.headers_mut().insert(header::CONTENT_TYPE, content.name());
        request.headers_mut().insert(header::ACCEPT, accepted.name());
        let request = request.map(|body| TimeoutBody::new(STANDSTILL, body));
        let mut translated = self.cors.layer(GrpcWebLayer::new().layer(service));
        let Ok(response) = translated.call(request).await;
        response
    }

    /// Answers what a browser asks before it calls.
    pub(super) async fn preflight(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        gate::drain(body);
        let nothing = |_| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let mut asked = self.cors.layer(service_fn(nothing));
        let Ok(response) = asked.call(Request::from_parts(head, Body::empty())).await;
        response
    }
}

/// Answers what is no call by a status of HTTP's.
pub(super) fn refuse(request: Request<Incoming>, status: StatusCode) -> Response<Body> {
    gate::drain(request.into_body());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
