//! The visitors and callers that the gate admitted. Only the gate can create these values.
//! `admit.rs` decides which tenant a call works in.

use std::{sync::Arc, time::Instant};

use crate::{
    api::paging::PageCaller,
    audit::{Actor, Event, EventKind, Origin, Refusal},
    error::{Error, Result},
    ids::{SessionId, SubjectId, TenantId},
    permissions::Standing,
    proto::v1::ErrorReason,
    tenants::TenantRef,
    tokens::SubjectType,
};

/// The permission that platform staff need to work in other tenants.
pub(super) const ACT_ACROSS: &str = "tenant:act";

/// The tenant that a public call names, in its metadata or its message.
#[derive(Clone, Debug)]
pub enum NamedTenant {
    /// The call names no tenant.
    Absent,
    /// The call names a tenant that does not exist. Contains the id or slug from the call.
    Unknown(String),
    /// The call names this tenant.
    Known(TenantRef),
}

impl NamedTenant {
    /// The named tenant; `None` when the call names no tenant or an unknown tenant.
    #[must_use]
    pub fn known(&self) -> Option<&TenantRef> {
        match self {
            Self::Known(tenant) => Some(tenant),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Whether the call names a tenant other than `tenant`.
    #[must_use]
    pub fn is_other_than(&self, tenant: TenantId) -> bool {
        match self {
            Self::Absent => false,
            Self::Unknown(_) => true,
            Self::Known(named_tenant) => named_tenant.id != tenant,
        }
    }
}

/// The sender of a call to a public method. The sender is not authenticated.
#[derive(Clone, Debug)]
pub struct Visitor {
    tenant: NamedTenant,
    origin: Origin,
    start: Instant,
}

impl Visitor {
    pub(super) fn new(tenant: NamedTenant, origin: Origin, start: Instant) -> Self {
        Self { tenant, origin, start }
    }

    /// The time when the call's message was complete, before any lookup. The response to a failed
    /// sign-in is sent at a fixed delay after this time.
    #[must_use]
    pub fn start_time(&self) -> Instant {
        self.start
    }

    /// The tenant that the metadata names. The handler must not treat an unknown tenant like no
    /// tenant.
    #[must_use]
    pub fn tenant(&self) -> &NamedTenant {
        &self.tenant
    }

    /// The address, the user agent and the correlation id of the call.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// A subject with a valid token of a live session or API key. The gate admitted the subject's call
/// of the method.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) tenant: TenantId,
    pub(super) own_tenant: TenantId,
    pub(super) user: SubjectId,
    pub(super) subject_type: SubjectType,
    pub(super) session: SessionId,
    pub(super) standing: Arc<Standing>,
    pub(super) origin: Origin,
}

impl Caller {
    /// The tenant that the call works in.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The caller's own tenant. This tenant equals [`Self::tenant`], except for platform staff who
    /// work in another tenant.
    #[must_use]
    pub fn own_tenant(&self) -> TenantId {
        self.own_tenant
    }

    /// The identity for which a page token is valid.
    #[must_use]
    pub fn page_caller(&self) -> PageCaller {
        PageCaller { own_tenant: self.own_tenant, user: self.user, tenant: self.tenant }
    }

    /// The id of the subject.
    #[must_use]
    pub fn user(&self) -> SubjectId {
        self.user
    }

    /// The type of the subject: a user or a service account.
    #[must_use]
    pub fn subject_type(&self) -> SubjectType {
        self.subject_type
    }

    /// The session of the caller's token. For a service account, the id of its API key.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the caller belongs to the platform tenant.
    #[must_use]
    pub fn is_platform(&self) -> bool {
        self.standing.tenant.get().is_platform
    }

    /// The roles, permissions and state that the caller has in its own tenant.
    #[must_use]
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether the caller is platform staff who may work in other tenants.
    #[must_use]
    pub fn may_work_in_other_tenants(&self) -> bool {
        may_work_in_other_tenants(&self.standing)
    }

    /// The address, the user agent and the correlation id of the call.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The audit record of a refused call of this caller, with the method and the reason.
    #[must_use]
    pub fn refusal(&self, method: &str, reason: &str) -> Refusal {
        let event =
            Event::new(EventKind::CallRefused).detail("method", method).detail("reason", reason);
        Refusal { tenant: self.tenant, subject: self.user, actor: self.actor(), event }
    }

    /// The caller as the actor of an audit event.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            tenant: Some(self.own_tenant),
            user: Some(self.user),
            session: Some(self.session),
            origin: self.origin.clone(),
        }
    }
}

/// Whether the subject with this standing is platform staff who may work in other tenants.
pub(super) fn may_work_in_other_tenants(standing: &Standing) -> bool {
    standing.tenant.get().is_platform && standing.holds(ACT_ACROSS)
}

/// The subjects whose data a caller may access with a method. Some methods admit each caller for
/// the caller's own data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// All subjects of the tenant: the caller holds the permission.
    Tenant,
    /// Only the caller. Contains the caller's id.
    Own(SubjectId),
}

impl Reach {
    /// Whether the caller may access the data of this user.
    #[must_use]
    pub fn includes(self, user: SubjectId) -> bool {
        match self {
            Self::Tenant => true,
            Self::Own(caller_id) => caller_id == user,
        }
    }

    /// The only user whose data the caller may access; `None` when the caller may access the data
    /// of all users.
    #[must_use]
    pub fn only_accessible_user(self) -> Option<SubjectId> {
        match self {
            Self::Tenant => None,
            Self::Own(user) => Some(user),
        }
    }
}

/// A caller of a method that admits each caller for the caller's own data. The functions return the
/// caller only together with the reach, or with a subject that the reach includes. So a handler
/// cannot forget the reach.
#[derive(Clone, Debug)]
pub struct SelfOrPermitted {
    caller: Caller,
    reach: Reach,
}

impl SelfOrPermitted {
    pub(super) fn new(caller: Caller, reach: Reach) -> Self {
        Self { caller, reach }
    }

    /// The caller, and the subject whose data the request is about: the subject that the request
    /// names, or the caller if the request names no subject.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the request names another subject and the caller does not
    /// hold the permission.
    pub fn caller_and_subject(&self, user: Option<SubjectId>) -> Result<(&Caller, SubjectId)> {
        let user = user.unwrap_or(self.caller.user);
        match self.reach {
            Reach::Own(caller_id) if caller_id != user => Err(Error::refused(
                ErrorReason::PermissionMissing,
                "the permission is missing, and the request is not for the caller's own data",
            )),
            _ => Ok((&self.caller, user)),
        }
    }

    /// The caller and the caller's reach, for a request about a resource whose owner is not known
    /// yet. For a resource that the caller may not access, the handler must return the same error
    /// as for a resource that does not exist.
    #[must_use]
    pub fn caller_and_reach(&self) -> (&Caller, Reach) {
        (&self.caller, self.reach)
    }
}
