//! Admits calls. The checks run in one order: metadata size, policy, tenant metadata, token,
//! session, tenant, rate limit, permission.
//!
//! The tenant is the tenant of the token. For a public call, it is the tenant that the metadata
//! names. A public call may also name the tenant in the message: see `sign_in/named_tenant.rs`.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, Request};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    WriteCaller,
    caller::{Caller, NamedTenant, SelfOrPermitted, Visitor},
    metadata,
    policy::{self, Access, MethodPolicy, Policies},
    refusals::{method_unknown, permission_missing, tenant_mismatch},
};
use crate::{
    audit::{self, Actor, Event, Origin, Refusals},
    credentials::api_keys::Secret,
    db::Db,
    error::{Error, Result},
    limits::{Limits, RateClass, TrustedProxies},
    permissions::UserStanding,
    proto::v1::ErrorReason,
    sessions::{Authenticated, Authenticator},
    tenants,
};

/// Admits calls.
pub struct Gatekeeper {
    /// The access policy of each method.
    pub policies: Policies,
    /// Finds the subject of an access token.
    pub authenticator: Authenticator,
    /// Looks up tenants.
    pub db: Db,
    /// The proxies whose `x-forwarded-for` header is trusted.
    pub proxies: TrustedProxies,
    /// The rate limits.
    pub limits: Limits,
    /// Records refused calls in the audit trail.
    pub refusals: Arc<Refusals>,
}

impl Gatekeeper {
    /// Admits a call of one of this service's methods. `method` is `None` for an unknown method.
    /// Puts the proof of admission into the request's extensions. Returns the caller; `None` for a
    /// public method.
    pub(super) async fn admit<B>(
        &self,
        request: &mut Request<B>,
        method: Option<&MethodPolicy>,
        origin: Origin,
    ) -> Result<Option<Caller>, Status> {
        let (method, named) = read(request.headers(), method)?;
        if method.access == Access::Public {
            let began = Instant::now();
            if let Some(class) = method.limit.filter(|class| class.counts_by_metadata()) {
                Box::pin(self.limits.network(class, origin.ip)).await?;
            }
            let tenant = Box::pin(self.find(named)).await?;
            request.extensions_mut().insert(Visitor::new(tenant, origin, began));
            return Ok(None);
        }

        let mut caller = self.identify(request.headers(), origin).await?;
        let admission = self.admit_caller(request, method, named, &mut caller).await;
        if let Err(error) = admission {
            let refusal = Status::from(error);
            self.record_refusal(&caller, &method.path, &refusal).await;
            return Err(refusal);
        }
        Ok(Some(caller))
    }

    async fn admit_caller<B>(
        &self,
        request: &mut Request<B>,
        method: &MethodPolicy,
        named: Option<String>,
        caller: &mut Caller,
    ) -> Result<()> {
        if let Some(class) = method.limit {
            Box::pin(self.limit(class, caller)).await?;
        }
        if let Some(named) = named {
            Box::pin(self.switch_tenant(caller, named, &method.path)).await?;
        }
        let admitted_caller = caller.clone();
        match &method.access {
            Access::Public | Access::Authenticated => {
                request.extensions_mut().insert(admitted_caller);
            }
            access @ Access::Permission { permissions, self_allowed, .. } => {
                let reach = access.reach(caller.user, &caller.standing);
                let reach = reach.ok_or_else(|| permission_missing(permissions))?;
                if method.power.is_some() {
                    request.extensions_mut().insert(WriteCaller::new(
                        admitted_caller,
                        reach,
                        access.clone(),
                    ));
                } else if *self_allowed {
                    request.extensions_mut().insert(SelfOrPermitted::new(admitted_caller, reach));
                } else {
                    request.extensions_mut().insert(admitted_caller);
                }
            }
        }
        Ok(())
    }

    /// Records the refusal when it is `PERMISSION_DENIED`.
    pub(super) async fn record_refusal(&self, caller: &Caller, path: &str, refusal: &Status) {
        if refusal.code() == Code::PermissionDenied {
            let reason = refusal.get_details_error_info().map(|info| info.reason);
            let reason = reason.unwrap_or_default();
            self.refusals.record(caller.refusal(path, &reason)).await;
        }
    }

    /// Admits a call of another package's service: health probes and reflection. These services
    /// have no tenant and read no store.
    pub(super) fn admit_public<B>(request: &Request<B>) -> Result<()> {
        metadata::bounded(request.headers())?;
        let is_known = policy::is_public_service(request.uri().path());
        if is_known { Ok(()) } else { Err(method_unknown()) }
    }

    /// Identifies the caller and the tenant from the headers of a call that another server handles.
    /// `path` is the path of that call.
    ///
    /// # Errors
    /// Returns the same errors as for a call of this service's own methods.
    pub async fn identify_for_proxy(
        &self,
        headers: &HeaderMap,
        path: &str,
        origin: Origin,
    ) -> Result<Caller> {
        metadata::bounded(headers)?;
        let named = metadata::tenant(headers)?;
        let mut caller = self.identify(headers, origin).await?;
        if let Some(named) = named {
            self.switch_tenant(&mut caller, named, path).await?;
        }
        Ok(caller)
    }

    /// Checks only the metadata of a call. Refuses metadata that is too large, an unknown method,
    /// and an invalid token.
    pub(super) async fn screen(
        &self,
        headers: &HeaderMap,
        method: Option<&MethodPolicy>,
        origin: Origin,
    ) -> Result<()> {
        let (method, _) = read(headers, method)?;
        if method.access != Access::Public {
            self.identify(headers, origin).await?;
        }
        Ok(())
    }

    /// Checks that an admitted call would still be admitted.
    pub(super) async fn readmit(
        &self,
        path: &str,
        headers: &HeaderMap,
        origin: Origin,
        across: bool,
    ) -> Result<()> {
        let caller = self.identify(headers, origin).await?;
        if across && !caller.may_act_across() {
            return Err(tenant_mismatch());
        }
        match self.policies.of(path) {
            Some(access @ Access::Permission { permissions, .. })
                if access.reach(caller.user, &caller.standing).is_none() =>
            {
                Err(permission_missing(permissions))
            }
            _ => Ok(()),
        }
    }

    async fn find(&self, named: Option<String>) -> Result<NamedTenant> {
        let Some(named) = named else { return Ok(NamedTenant::Absent) };
        let found = tenants::find(&self.db, &named).await?;
        Ok(found.map_or(NamedTenant::Unknown(named), NamedTenant::Known))
    }

    /// Identifies the subject of the token. The subject and its tenant must be active.
    async fn identify(&self, headers: &HeaderMap, origin: Origin) -> Result<Caller> {
        let bearer = metadata::bearer(headers)?;
        // Only Postgres can verify the secret of an API key that is not cached, so the rate limit
        // counts the attempt.
        if Secret::has_prefix(bearer) && !self.authenticator.remembers(bearer) {
            // A malformed secret causes no query, so the rate limit does not count it.
            if Secret::read(bearer).is_none() {
                return Err(metadata::token_invalid());
            }
            Box::pin(self.limits.network(RateClass::ApiKey, origin.ip)).await?;
        }
        let found = self.authenticator.authenticate(bearer).await?;
        let Authenticated { token, standing } = found.ok_or_else(metadata::token_invalid)?;
        if standing.user != UserStanding::Active {
            return Err(metadata::token_invalid());
        }
        if !standing.tenant.get().active {
            return Err(Error::refused(ErrorReason::TenantSuspended, "the tenant is suspended"));
        }
        Ok(Caller {
            tenant: token.tenant,
            home: token.tenant,
            user: token.user,
            subject_type: token.subject_type,
            session: token.session,
            standing,
            origin,
        })
    }

    async fn limit(&self, class: RateClass, caller: &Caller) -> Result<()> {
        let result = self.limits.network(class, caller.origin.ip).await;
        result.inspect_err(|_| self.refusals.limited(caller.home, class.name(), "network"))?;
        self.limits.tenant(class, caller.home).await
    }

    /// Moves the call into the tenant that the metadata names, if it is not the token's tenant.
    /// Only platform staff may work in another tenant. The audit trail records each such call.
    async fn switch_tenant(&self, caller: &mut Caller, named: String, path: &str) -> Result<()> {
        if named == caller.home.to_string() {
            return Ok(());
        }
        let standing = &caller.standing;
        if named == standing.tenant.get().slug {
            return Ok(());
        }
        if !caller.may_act_across() {
            return Err(tenant_mismatch());
        }
        let NamedTenant::Known(tenant) = self.find(Some(named)).await? else {
            return Err(Error::not_found());
        };
        caller.tenant = tenant.id;
        let actor: Actor = caller.actor();
        let event = Event::across_tenants(path);
        audit::record_alone(&self.db, tenant.id, &actor, event).await
    }
}

/// Checks the metadata before any lookup. Returns the policy of the method, and the tenant that the
/// metadata names.
fn read<'a>(
    headers: &HeaderMap,
    method: Option<&'a MethodPolicy>,
) -> Result<(&'a MethodPolicy, Option<String>)> {
    metadata::bounded(headers)?;
    let method = method.ok_or_else(method_unknown)?;
    Ok((method, metadata::tenant(headers)?))
}
