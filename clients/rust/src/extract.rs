//! Extractors for axum's handlers: the principal of a request.

use std::{marker::PhantomData, ops::Deref};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use crate::{
    guard::{Denied, Guard},
    keys::Principal,
};

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        self.response()
    }
}

/// Extracts the principal of a valid access token. Behind the layer
/// [`RequirePermission`](crate::RequirePermission), extracts the principal that the layer accepted.
impl<S> FromRequestParts<S> for Principal
where
    Guard: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denied> {
        if let Some(principal) = parts.extensions.get::<Self>() {
            return Ok(principal.clone());
        }
        Guard::from_ref(state).principal(&parts.headers).await
    }
}

/// A permission that the type of a handler's argument can require.
pub trait Permission {
    /// The permission, as `resource:action`.
    const NAME: &'static str;
}

/// Extracts the principal of a request and requires a permission. Use it as the type of a handler's
/// argument.
///
/// ```
/// use axum::{Router, routing::post};
/// use tenantry_client::{Guard, Permission, Require};
///
/// struct ManageAgents;
///
/// impl Permission for ManageAgents {
///     const NAME: &'static str = "agent:manage";
/// }
///
/// async fn create_agent(caller: Require<ManageAgents>) -> String {
///     format!("created an agent for {}", caller.subject)
/// }
///
/// fn routes(guard: Guard) -> Router {
///     Router::new().route("/agents", post(create_agent)).with_state(guard)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Require<P> {
    principal: Principal,
    permission: PhantomData<P>,
}

impl<P> Deref for Require<P> {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<P, S> FromRequestParts<S> for Require<P>
where
    P: Permission,
    Guard: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denied> {
        let guard = Guard::from_ref(state);
        let principal = guard.permit(&parts.headers, P::NAME, &[]).await?;
        Ok(Self { principal, permission: PhantomData })
    }
}
