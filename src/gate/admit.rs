//! The order in which a call is admitted. One function, top to bottom:
//! size, policy, tenant metadata, token, session, tenant, permission.

use std::sync::Arc;

use http::{HeaderMap, Request};

use super::{
    caller::{Caller, NamedTenant, Reach, Reaching, Visitor},
    metadata,
    policy::{self, Access, Policies},
};
use crate::{
    audit::{self, Actor, Event, Origin},
    db::Db,
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    permissions::{Engine, Standing},
    proto::v1::ErrorReason,
    sessions::SessionCache,
    tenants,
    tokens::{Claims, Keyring, TokenKind},
};

/// What the platform's staff must hold to work in other tenants.
const ACT_ACROSS: &str = "tenant:act";

/// All that admitting a call takes.
pub struct Gatekeeper {
    /// Who may call what.
    pub policies: Policies,
    /// Verifies tokens.
    pub keyring: Arc<Keyring>,
    /// Knows what subjects hold.
    pub engine: Engine,
    /// Knows which sessions are live.
    pub sessions: SessionCache,
    /// Finds tenants.
    pub db: Db,
}

impl Gatekeeper {
    /// Admits a call: puts the proof into its extensions, or says why not.
    pub(super) async fn admit<B>(&self, request: &mut Request<B>, origin: Origin) -> Result<()> {
        metadata::bounded(request.headers())?;
        let Some(access) = self.policies.of(request.uri().path()) else {
            return Err(Error::refused(ErrorReason::MethodUnknown, "no such method"));
        };
        if !policy::is_own(request.uri().path()) {
            // Probes and reflection know no tenants, and ask no store.
            return Ok(());
        }
        let named = metadata::tenant(request.headers())?;
        if *access == Access::Public {
            let tenant = self.find(named).await?;
            request.extensions_mut().insert(Visitor::new(tenant, origin));
            return Ok(());
        }

        let claims = self.verify(request.headers())?;
        let mut caller = self.identify(&claims, named.as_deref(), access, origin).await?;
        if let Some(named) = named {
            self.enter(&mut caller, named, request.uri().path()).await?;
        }
        match access {
            Access::Public | Access::Authenticated => {
                request.extensions_mut().insert(caller);
            }
            Access::Permission { permissions, self_allowed, platform_only } => {
                let holds = holds_all(&caller, permissions, *platform_only)?;
                let own = Reach::Own(caller.user());
                match (self_allowed, holds) {
                    (false, true) => {
                        request.extensions_mut().insert(caller);
                    }
                    (true, true) => {
                        request.extensions_mut().insert(Reaching::new(caller, Reach::Tenant));
                    }
                    (true, false) => {
                        request.extensions_mut().insert(Reaching::new(caller, own));
                    }
                    (false, false) => return Err(permission_missing(permissions)),
                }
            }
        }
        Ok(())
    }

    async fn find(&self, named: Option<String>) -> Result<NamedTenant> {
        let Some(named) = named else { return Ok(NamedTenant::Absent) };
        let found = tenants::find(&self.db, &named).await?;
        Ok(found.map_or(NamedTenant::Unknown, NamedTenant::Known))
    }

    fn verify(&self, headers: &HeaderMap) -> Result<Claims> {
        let token = metadata::bearer(headers)?;
        self.keyring.verify(TokenKind::Access, token).ok_or_else(metadata::token_invalid)
    }

    /// The token's subject, its session live and its tenant active.
    ///
    /// A method that demands no permission needs no standing: the session cache
    /// answers. Where Postgres is asked for the standing anyway, the session
    /// comes with it.
    async fn identify(
        &self,
        claims: &Claims,
        named: Option<&str>,
        access: &Access,
        origin: Origin,
    ) -> Result<Caller> {
        let mut caller = Caller {
            tenant: TenantId(claims.org),
            home: TenantId(claims.org),
            user: UserId(claims.sub),
            session: SessionId(claims.sid),
            is_platform: false,
            standing: None,
            origin,
        };
        let names_another = named.is_some_and(|named| named != caller.home.to_string());
        if *access == Access::Authenticated && !names_another {
            let (tenant, user, session) = (caller.home, caller.user, caller.session);
            let ends_in = claims.exp - crate::clock::now().unix_timestamp();
            let lookup = self.sessions.lookup(tenant, session, user).await;
            if let crate::sessions::Lookup::Unknown(ticket) = lookup {
                self.live_standing(&caller).await?;
                self.sessions.fill(ticket, ends_in).await;
            }
            return Ok(caller);
        }
        let standing = self.live_standing(&caller).await?;
        caller.is_platform = standing.is_platform;
        caller.standing = Some(Arc::new(standing));
        Ok(caller)
    }

    async fn live_standing(&self, caller: &Caller) -> Result<Standing> {
        let session = Some(caller.session);
        let standing = self.engine.standing(caller.home, caller.user, session).await?;
        let Some(standing) = standing else { return Err(metadata::token_invalid()) };
        if !standing.session_live || !standing.user_active {
            return Err(metadata::token_invalid());
        }
        if !standing.tenant_active {
            return Err(Error::refused(ErrorReason::TenantSuspended, "the tenant is suspended"));
        }
        Ok(standing)
    }

    /// Works in the tenant that the metadata names, where it is not the
    /// token's: for the platform's staff, and never without a trace.
    async fn enter(&self, caller: &mut Caller, named: String, path: &str) -> Result<()> {
        if named == caller.home.to_string() {
            return Ok(());
        }
        let standing = caller.standing()?.clone();
        if named == standing.tenant_slug {
            return Ok(());
        }
        if !caller.is_platform || !standing.holds(ACT_ACROSS) {
            return Err(Error::refused(
                ErrorReason::TenantMismatch,
                "the tenant metadata is not the token's tenant",
            ));
        }
        let NamedTenant::Known(tenant) = self.find(Some(named)).await? else {
            return Err(Error::not_found());
        };
        caller.tenant = tenant.id;
        let actor: Actor = caller.actor();
        let event = Event::new("acted_across_tenants").detail("method", path);
        audit::record_alone(&self.db, tenant.id, &actor, event).await
    }
}

fn holds_all(caller: &Caller, permissions: &[String], platform_only: bool) -> Result<bool> {
    let standing = caller.standing()?;
    Ok((caller.is_platform || !platform_only) && permissions.iter().all(|p| standing.holds(p)))
}

fn permission_missing(permissions: &[String]) -> Error {
    let text = format!("the caller must hold {}", permissions.join(", "));
    Error::refused(ErrorReason::PermissionMissing, text)
}
