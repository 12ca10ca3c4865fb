//! Admits calls. The checks have a fixed order: metadata size, policy of the method, form of the
//! tenant metadata, token, session, state of the subject and its tenant, rate limit, tenant that
//! the metadata names, permission. For a public call: metadata size, policy of the method, form of
//! the tenant metadata, rate limit of the network, tenant that the metadata names.
//!
//! A call with a token works in the tenant of the token. Platform staff can name another tenant in
//! the metadata; for another caller such a call is refused. A public call names its tenant in the
//! metadata or in the message: see `sign_in/named_tenant.rs`.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

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
    ids::{SubjectId, TenantId},
    limits::{Limits, RateClass, TrustedProxies},
    permissions::UserStanding,
    proto::v1::ErrorReason,
    sessions::{Authenticated, Authenticator},
    tenants,
};

/// The tenant and the subject of a call, for its log line; not set while the caller is not known.
pub(super) type Identified = OnceLock<(TenantId, SubjectId)>;

/// Admits calls.
pub struct Authorizer {
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

impl Authorizer {
    /// Admits a call of one of this service's methods. `method` is `None` for an unknown method.
    /// Adds the proof of admission to the request's extensions. Returns the caller; `None` for a
    /// public method.
    pub(super) async fn admit<B>(
        &self,
        request: &mut Request<B>,
        method: Option<&MethodPolicy>,
        origin: Origin,
        identified: &Identified,
    ) -> Result<Option<Caller>, Status> {
        let (method, tenant_key) = check_metadata(request.headers(), method)?;
        if method.access == Access::Public {
            let start = Instant::now();
            if let Some(class) = method.limit.filter(|class| class.is_counted_before_decoding()) {
                Box::pin(self.limits.count_for_network(class, origin.ip)).await?;
            }
            let charged_tenant = || self.limits.placeholder_tenant_of_network(origin.ip);
            let tenant = Box::pin(self.find_tenant(charged_tenant, tenant_key)).await?;
            request.extensions_mut().insert(Visitor::new(tenant, origin, start));
            return Ok(None);
        }

        let mut caller = self.identify(request.headers(), origin).await?;
        let result = self.admit_caller(request, method, tenant_key, &mut caller).await;
        // Set once for each call, so this never fails.
        identified.set((caller.tenant, caller.user)).ok();
        if let Err(error) = result {
            let refusal = Status::from(error);
            self.record_refusal(&caller, &method.path, &refusal).await;
            return Err(refusal);
        }
        Ok(Some(caller))
    }

    /// Checks the rate limits, the named tenant and the permission of an identified caller. Adds
    /// the proof of admission to the request's extensions.
    async fn admit_caller<B>(
        &self,
        request: &mut Request<B>,
        method: &MethodPolicy,
        tenant_key: Option<String>,
        caller: &mut Caller,
    ) -> Result<()> {
        if let Some(class) = method.limit {
            Box::pin(self.check_rate(class, caller)).await?;
        }
        if let Some(tenant_key) = tenant_key {
            Box::pin(self.switch_tenant(caller, tenant_key, &method.path)).await?;
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

    /// Records a refusal in the audit trail if its code is `PERMISSION_DENIED`.
    pub(super) async fn record_refusal(&self, caller: &Caller, path: &str, refusal: &Status) {
        if refusal.code() == Code::PermissionDenied {
            let reason = refusal.get_details_error_info().map(|info| info.reason);
            let reason = reason.unwrap_or_default();
            self.refusals.record(caller.refusal(path, &reason)).await;
        }
    }

    /// Admits a call of a service of another package: health probes or reflection. These services
    /// have no tenant and use no store.
    pub(super) fn admit_public<B>(request: &Request<B>) -> Result<()> {
        metadata::check_size(request.headers())?;
        let is_known = policy::is_public_service(request.uri().path());
        if is_known { Ok(()) } else { Err(method_unknown()) }
    }

    /// Identifies the caller from the headers of a request that a proxy asks about. A header that
    /// names a tenant must name the tenant of the token, also for platform staff. Otherwise the
    /// service behind the proxy would use the rights that platform staff have in the platform
    /// tenant as if they were rights in the named tenant.
    ///
    /// # Errors
    /// Returns the same errors as for a call of this service's own methods.
    pub async fn identify_for_proxy(&self, headers: &HeaderMap, origin: Origin) -> Result<Caller> {
        metadata::check_size(headers)?;
        let tenant_key = metadata::tenant_key(headers)?;
        let caller = self.identify(headers, origin).await?;
        if tenant_key.is_some_and(|tenant_key| !is_own_tenant(&caller, &tenant_key)) {
            return Err(tenant_mismatch());
        }
        Ok(caller)
    }

    /// Checks only the metadata of a call, before its message has arrived. Refuses invalid
    /// metadata, an unknown method and an invalid token.
    pub(super) async fn screen(
        &self,
        headers: &HeaderMap,
        method: Option<&MethodPolicy>,
        origin: Origin,
    ) -> Result<()> {
        let (method, _) = check_metadata(headers, method)?;
        if method.access != Access::Public {
            self.identify(headers, origin).await?;
        }
        Ok(())
    }

    /// Checks that an admitted call would also be admitted now.
    pub(super) async fn readmit(
        &self,
        path: &str,
        headers: &HeaderMap,
        origin: Origin,
        is_in_other_tenant: bool,
    ) -> Result<()> {
        let caller = self.identify(headers, origin).await?;
        if is_in_other_tenant && !caller.may_work_in_other_tenants() {
            return Err(tenant_mismatch());
        }
        match self.policies.access_of(path) {
            Some(access @ Access::Permission { permissions, .. })
                if access.reach(caller.user, &caller.standing).is_none() =>
            {
                Err(permission_missing(permissions))
            }
            _ => Ok(()),
        }
    }

    /// Finds the tenant that the metadata names. The lookup counts against the limits of
    /// `charged_tenant`.
    async fn find_tenant(
        &self,
        charged_tenant: impl FnOnce() -> TenantId,
        key: Option<String>,
    ) -> Result<NamedTenant> {
        let Some(key) = key else { return Ok(NamedTenant::Absent) };
        let tenant = tenants::find(&self.db, charged_tenant(), &key).await?;
        Ok(tenant.map_or(NamedTenant::Unknown(key), NamedTenant::Known))
    }

    /// Identifies the subject of the bearer token, or of the API key that is sent as bearer token.
    /// The subject and its tenant must be active.
    async fn identify(&self, headers: &HeaderMap, origin: Origin) -> Result<Caller> {
        let bearer = metadata::bearer(headers)?;
        // To verify an API key that is not cached, Postgres is needed. So the rate limit counts
        // such a call.
        if Secret::has_prefix(bearer) && !self.authenticator.is_cached(bearer) {
            // A malformed secret causes no query, so the rate limit does not count the call.
            if Secret::parse(bearer).is_none() {
                return Err(metadata::token_invalid());
            }
            Box::pin(self.limits.count_for_network(RateClass::ApiKey, origin.ip)).await?;
        }
        // The tenant that a bearer token names is not known before the token is verified.
        let charged_tenant = || self.limits.placeholder_tenant_of_network(origin.ip);
        let authenticated = self.authenticator.authenticate(bearer, charged_tenant).await?;
        let Authenticated { token, standing } =
            authenticated.ok_or_else(metadata::token_invalid)?;
        if standing.user != UserStanding::Active {
            return Err(metadata::token_invalid());
        }
        if !standing.tenant.get().active {
            return Err(Error::refused(ErrorReason::TenantSuspended, "the tenant is suspended"));
        }
        Ok(Caller {
            tenant: token.tenant,
            own_tenant: token.tenant,
            user: token.user,
            subject_type: token.subject_type,
            session: token.session,
            standing,
            origin,
        })
    }

    /// Counts the call for the client's network and for the caller's tenant.
    async fn check_rate(&self, class: RateClass, caller: &Caller) -> Result<()> {
        let result = self.limits.count_for_network(class, caller.origin.ip).await;
        result.inspect_err(|_| {
            self.refusals.record_rate_limit(caller.own_tenant, class.name(), "network");
        })?;
        self.limits.count_for_tenant(class, caller.own_tenant).await
    }

    /// Moves the call into the tenant that the metadata names, if this is not the token's tenant.
    /// Only platform staff may work in another tenant. The audit trail records each such call.
    async fn switch_tenant(
        &self,
        caller: &mut Caller,
        tenant_key: String,
        path: &str,
    ) -> Result<()> {
        if is_own_tenant(caller, &tenant_key) {
            return Ok(());
        }
        if !caller.may_work_in_other_tenants() {
            return Err(tenant_mismatch());
        }
        let charged_tenant = || caller.own_tenant;
        let NamedTenant::Known(tenant) = self.find_tenant(charged_tenant, Some(tenant_key)).await?
        else {
            return Err(Error::not_found());
        };
        caller.tenant = tenant.id;
        let actor: Actor = caller.actor();
        let event = Event::across_tenants(path);
        audit::record_in_own_transaction(&self.db, tenant.id, &actor, event).await
    }
}

/// Whether this id or slug is that of the caller's own tenant.
fn is_own_tenant(caller: &Caller, tenant_key: &str) -> bool {
    tenant_key == caller.own_tenant.to_string() || tenant_key == caller.standing.tenant.get().slug
}

/// Checks the metadata before any lookup. Returns the policy of the method, and the id or slug of
/// the tenant that the metadata names.
fn check_metadata<'a>(
    headers: &HeaderMap,
    method: Option<&'a MethodPolicy>,
) -> Result<(&'a MethodPolicy, Option<String>)> {
    metadata::check_size(headers)?;
    let method = method.ok_or_else(method_unknown)?;
    Ok((method, metadata::tenant_key(headers)?))
}
