//! The tower layer that guards an HTTP or gRPC service.

use std::{
    convert::Infallible,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use tonic::Status;
use tower::{Layer, Service};

use crate::guard::{Denied, Guard};

/// A layer that requires a permission without a scope. The guarded service finds the
/// [`Principal`](crate::Principal) among the request's extensions.
#[derive(Clone, Debug)]
pub struct RequirePermission {
    guard: Guard,
    permission: Arc<str>,
}

impl RequirePermission {
    pub(crate) fn new(guard: Guard, permission: String) -> Self {
        Self { guard, permission: permission.into() }
    }
}

impl<S> Layer<S> for RequirePermission {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { layer: self.clone(), inner }
    }
}

/// A service behind [`RequirePermission`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    layer: RequirePermission,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // This call uses the instance that `poll_ready` reported as ready. A clone replaces it for
        // later calls.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let RequirePermission { guard, permission } = self.layer.clone();
        Box::pin(async move {
            match guard.permit(request.headers(), &permission, &[]).await {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    inner.call(request).await
                }
                Err(denied) if is_grpc(&request) => Ok(denied.status().into_http()),
                Err(denied) => Ok(denied.response()),
            }
        })
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

impl Denied {
    /// Converts the reason to a gRPC status.
    #[must_use]
    pub fn status(self) -> Status {
        let text = self.to_string();
        match self {
            Self::Unauthenticated => Status::unauthenticated(text),
            Self::Forbidden => Status::permission_denied(text),
            Self::Unavailable => Status::unavailable(text),
        }
    }

    /// Converts the reason to an HTTP response (RFC 6750, 3).
    #[must_use]
    pub fn response<B: Default>(self) -> Response<B> {
        let (code, challenge) = match self {
            Self::Unauthenticated => {
                (StatusCode::UNAUTHORIZED, Some("Bearer error=\"invalid_token\""))
            }
            Self::Forbidden => (StatusCode::FORBIDDEN, Some("Bearer error=\"insufficient_scope\"")),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        let mut response = Response::new(B::default());
        *response.status_mut() = code;
        if let Some(challenge) = challenge {
            let value = HeaderValue::from_static(challenge);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}
