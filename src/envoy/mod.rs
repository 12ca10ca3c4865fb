//! Envoy's external authorization: Envoy asks about each request before it forwards it.
//!
//! [`asked`] reads Envoy's request and [`answer`] writes the response. Every error becomes a
//! denial and never a failed call, because a setting of Envoy may allow requests whose check
//! failed.

mod answer;
mod request;

use std::sync::Arc;

use envoy_types::ext_authz::v3::pb::{Authorization, CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};

use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::{self, Caller, ENVOY_CHECK, Gatekeeper},
    permissions::{Permission, decide::decide},
    proto::v1::{DecisionReason, ErrorReason},
};
use request::{CheckedRequest, Required};

/// The authorization service that Envoy calls.
pub struct Authorizer {
    keeper: Arc<Gatekeeper>,
}

impl Authorizer {
    /// Creates a service that allows the same callers as this gatekeeper.
    #[must_use]
    pub fn new(keeper: Arc<Gatekeeper>) -> Self {
        Self { keeper }
    }

    /// Decides a request. Returns its caller when the request is allowed.
    async fn decide(&self, request: &CheckRequest, mut origin: Origin) -> Result<Caller> {
        let CheckedRequest { headers, source, required } = CheckedRequest::read(request)?;
        let client_behind_gateway =
            |envoy| self.keeper.proxies.client_behind_gateway(envoy, source, &headers);
        origin.ip = origin.ip.map(client_behind_gateway);
        let caller =
            Box::pin(self.keeper.identify_for_proxy(&headers, ENVOY_CHECK, origin)).await?;
        let Required::Permission { name, scope } = required else { return Ok(caller) };
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
impl Authorization for Authorizer {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let origin = gate::visitor(&request)?.origin().clone();
        let decided = self.decide(request.get_ref(), origin).await;
        Ok(Response::new(match decided {
            Ok(caller) => answer::allowed(&caller),
            Err(error) => answer::denied(&error.into()),
        }))
    }
}
