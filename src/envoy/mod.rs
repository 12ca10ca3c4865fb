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
    permissions::{Permission, decide::decide},
    proto::v1::{DecisionReason, ErrorReason},
};
use proto::{Authorization, CheckRequest, CheckResponse};
use request::{CheckedRequest, Requirement};

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
    async fn decide(&self, request: &CheckRequest, mut origin: Origin) -> Result<Caller> {
        let CheckedRequest { headers, client_of_envoy, requirement } =
            CheckedRequest::read(request)?;
        let client_behind_gateway =
            |envoy| self.authorizer.proxies.client_behind_gateway(envoy, client_of_envoy, &headers);
        origin.ip = origin.ip.map(client_behind_gateway);
        let caller = Box::pin(self.authorizer.identify_for_proxy(&headers, origin)).await?;
        let Requirement::Permission { name, scope } = requirement else { return Ok(caller) };
        let permission = Permission::concrete("permission", &name).map_err(|_| {
            Error::defect("a route's permission is not of the form resource:action")
        })?;
        let reason = decide(Some(caller.standing()), &permission, &scope);
        if reason == DecisionReason::Granted {
            return Ok(caller);
        }
        tracing::info!(
            reason = reason.as_str_name(),
            request_id = %caller.origin().correlation_id,
            tenant = %caller.tenant(),
            user_id = %caller.user(),
            permission = name,
            "denied"
        );
        let text = format!("the caller must hold {name}");
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
        let decision = self.decide(request.get_ref(), origin).await;
        Ok(Response::new(match decision {
            Ok(caller) => response::allow(&caller),
            Err(error) => response::deny(&error.into()),
        }))
    }
}
