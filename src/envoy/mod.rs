//! Envoy's external authorization: before Envoy forwards a request, Envoy calls this service, which
//! allows or denies the request.
//!
//! [`request`] reads Envoy's message and [`response`] writes the response. Every error becomes a
//! denial and never a failed call, because a setting of Envoy (`failure_mode_allow`) may allow
//! requests whose check failed.

pub mod proto;
mod request;
mod response;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::{self, Caller},
    permissions::decide::decide,
    proto::v1::{DecisionReason, ErrorReason},
};
use proto::{Authorization, CheckRequest, CheckResponse};
use request::{CheckedRequest, ReadError, Requirement};

/// The authorization service that Envoy calls.
pub struct EnvoyAuthorization {
    authorizer: Arc<gate::Authorizer>,
}

impl EnvoyAuthorization {
    /// Creates a service that identifies callers with this authorizer of the gate.
    #[must_use]
    pub fn new(authorizer: Arc<gate::Authorizer>) -> Self {
        Self { authorizer }
    }

    /// Decides on a request. Returns the caller of the request when the request is allowed.
    async fn decide(&self, request: CheckedRequest<'_>, mut origin: Origin) -> Result<Caller> {
        let CheckedRequest { headers, client_of_envoy, requirement } = request;
        // `origin.ip` is the address of Envoy. If Envoy is a trusted proxy, the address of its
        // client replaces it.
        let client_behind_gateway = |envoy_ip| {
            self.authorizer.proxies.client_behind_gateway(envoy_ip, client_of_envoy, &headers)
        };
        origin.ip = origin.ip.map(client_behind_gateway);
        let caller = Box::pin(self.authorizer.identify_for_proxy(&headers, origin)).await?;
        let Requirement::Permission { permission, scope } = requirement else { return Ok(caller) };
        let reason = decide(Some(caller.standing()), &permission, &scope);
        if reason == DecisionReason::Granted {
            return Ok(caller);
        }
        tracing::info!(
            reason = reason.as_str_name(),
            request_id = %caller.origin().correlation_id,
            tenant = %caller.tenant(),
            user_id = %caller.user(),
            permission = permission.text(),
            "denied"
        );
        let text = format!("the caller must hold {}", permission.text());
        Err(Error::refused(ErrorReason::PermissionMissing, text))
    }
}

#[tonic::async_trait]
impl Authorization for EnvoyAuthorization {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let origin = gate::visitor(&request)?.origin().clone();
        let decision = match CheckedRequest::read(request.get_ref()) {
            Ok(request) => self.decide(request, origin).await,
            Err(ReadError::Refused(error)) => Err(error),
            Err(ReadError::InvalidRoute(problem)) => {
                tracing::warn!(problem, request_id = %origin.correlation_id, "invalid Envoy route");
                return Ok(Response::new(response::deny_invalid_route()));
            }
        };
        Ok(Response::new(match decision {
            Ok(caller) => response::allow(&caller),
            Err(error) => response::deny(&error.into()),
        }))
    }
}
