//! Browsers: gRPC-Web, and pages of which origins may use it.

use std::{convert::Infallible, time::Duration};

use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;

/// What a page may send beside what any may (Fetch, 4.8: CORS-unsafe request headers).
const SENT: [HeaderName; 10] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-organization-slug"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-tenant-id"),
    HeaderName::from_static("x-user-agent"),
];

/// What it may read of an answer.
const READ: [HeaderName; 4] = [
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("x-request-id"),
];

/// How long a browser may remember what it asked. None does for longer.
const REMEMBERED: Duration = Duration::from_hours(2);

/// What browsers are answered by.
pub(super) struct Web {
    /// Without credentials: tokens are no cookies, which a browser would add by itself.
    cors: CorsLayer,
}

impl Web {
    /// For pages of these origins. Of other pages, browsers let nothing through: a call
    /// is never one that they send without having asked.
    pub(super) fn for_pages_of(origins: Vec<HeaderValue>) -> Self {
        let cors = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::POST])
            .allow_headers(SENT)
            .expose_headers(READ)
            .max_age(REMEMBERED);
        Self { cors }
    }

    /// Translates a call for a service, and its answer back; answers what a browser asks
    /// before it calls.
    pub(super) async fn answer<S>(&self, request: Request<Incoming>, service: S) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let mut translated = self.cors.layer(GrpcWebLayer::new().layer(service));
        match translated.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
