//! gRPC-Web for browser clients, and CORS for the allowed origins.

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, service_fn};
use tower_http::{cors::CorsLayer, timeout::TimeoutBody};

use crate::gate;

/// Request headers that a browser client may send in addition to the CORS-safelisted headers (Fetch
/// standard, section 4.8: CORS-unsafe request headers).
const ALLOWED_HEADERS: [HeaderName; 13] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("baggage"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-organization-slug"),
    gate::REQUEST_ID,
    HeaderName::from_static("x-tenant-id"),
    HeaderName::from_static("x-user-agent"),
];

/// Response headers that a browser client may read.
const EXPOSED_HEADERS: [HeaderName; 6] = [
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
    gate::REQUEST_ID,
];

/// Time that a browser may cache a preflight response. This is the maximum that Chromium allows.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// Maximum time between two frames of a request's body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The encoding of gRPC-Web messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Binary,
    /// Base64.
    Text,
}

impl Encoding {
    /// The encoding of a request's body; `None` when the request is not gRPC-Web with protobuf.
    pub(super) fn of_request(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        // Parameters have no meaning here (RFC 9110, section 8.3.1).
        let media_type =
            content_type.split(';').next().unwrap_or(content_type).trim().to_ascii_lowercase();
        match media_type.strip_suffix("+proto").unwrap_or(&media_type) {
            "application/grpc-web" => Some(Self::Binary),
            "application/grpc-web-text" => Some(Self::Text),
            _ => None,
        }
    }

    /// The encoding of the response: the encoding in the header `accept`, else the encoding of the
    /// request.
    fn of_response(self, headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match accept {
            Some(accept) if accept.contains("application/grpc-web-text") => Self::Text,
            Some(accept) if accept.contains("application/grpc-web") => Self::Binary,
            _ => self,
        }
    }

    /// The content type, in the form that tonic expects.
    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Binary => HeaderValue::from_static("application/grpc-web+proto"),
            Self::Text => HeaderValue::from_static("application/grpc-web-text+proto"),
        }
    }
}

/// Serves gRPC-Web and CORS preflights.
pub(super) struct GrpcWeb {
    origins: Vec<HeaderValue>,
    /// CORS without credentials, because the API uses no cookies: a browser client sets the header
    /// `authorization`.
    cors: CorsLayer,
}

impl GrpcWeb {
    /// Serves browser clients of these origins.
    pub(super) fn with_allowed_origins(origins: Vec<HeaderValue>) -> Self {
        let cors = CorsLayer::new()
            .allow_origin(origins.clone())
            .allow_methods([Method::POST])
            .allow_headers(ALLOWED_HEADERS)
            .expose_headers(EXPOSED_HEADERS)
            .max_age(PREFLIGHT_MAX_AGE);
        Self { origins, cors }
    }

    /// Translates a call to gRPC for a service, and translates the service's response back.
    pub(super) async fn call<S>(
        &self,
        mut request: Request<Incoming>,
        encoding: Encoding,
        service: S,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        // After DNS rebinding a browser treats the call as same-origin and sends no CORS preflight,
        // so the header `origin` is checked here too.
        let origin = request.headers().get(header::ORIGIN);
        if origin.is_some_and(|origin| !self.origins.contains(origin)) {
            return refuse(request, StatusCode::FORBIDDEN);
        }
        let response_encoding = encoding.of_response(request.headers());
        request.headers_mut().insert(header::CONTENT_TYPE, encoding.content_type());
        request.headers_mut().insert(header::ACCEPT, response_encoding.content_type());
        let request = request.map(|body| TimeoutBody::new(BODY_IDLE_TIMEOUT, body));
        let mut translating_service = self.cors.layer(GrpcWebLayer::new().layer(service));
        let Ok(response) = translating_service.call(request).await;
        response
    }

    /// Responds to a CORS preflight.
    pub(super) async fn preflight(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        gate::discard_body(body);
        let empty_response = |_| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let mut cors_service = self.cors.layer(service_fn(empty_response));
        let Ok(response) = cors_service.call(Request::from_parts(head, Body::empty())).await;
        response
    }
}

/// Refuses a request with an HTTP status, without a gRPC status.
pub(super) fn refuse(request: Request<Incoming>, status: StatusCode) -> Response<Body> {
    gate::discard_body(request.into_body());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
