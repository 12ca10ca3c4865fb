//! The callers that the gate admitted. Only the gate can create these values.

use std::{sync::Arc, time::Instant};

use crate::{
    api::paging::PageCaller,
    audit::{Actor, Event, EventKind, Origin, Refusal},
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    permissions::Standing,
    proto::v1::ErrorReason,
    tenants::TenantRef,
    tokens::SubjectType,
};

/// The permission that platform staff need to work in other tenants.
const ACT_ACROSS: &str = "tenant:act";

/// The tenant that a public call's metadata names.
#[derive(Clone, Debug)]
pub enum NamedTenant {
    /// The metadata names no tenant.
    Absent,
    /// The metadata names a tenant that does not exist. Contains the id or slug from the metadata.
    Unknown(String),
    /// The metadata names this tenant.
    Known(TenantRef),
}

impl NamedTenant {
    /// The named tenant; `None` when the metadata names no tenant or an unknown tenant.
    #[must_use]
    pub fn known(&self) -> Option<&TenantRef> {
        match self {
            Self::Known(tenant) => Some(tenant),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Whether the metadata names a tenant other than `tenant`.
    #[must_use]
    pub fn is_other_than(&self, tenant: TenantId) -> bool {
        match self {
            Self::Absent => false,
            Self::Unknown(_) => true,
            Self::Known(named) => named.id != tenant,
        }
    }
}

/// The caller of a public method. The caller is not authenticated.
#[derive(Clone, Debug)]
pub struct Visitor {
    tenant: NamedTenant,
    origin: Origin,
    began: Instant,
}

impl Visitor {
    pub(super) fn new(tenant: NamedTenant, origin: Origin, began: Instant) -> Self {
        Self { tenant, origin, began }
    }

    /// The time when the call's message was complete, before any lookup. A failed sign-in is
    /// answered at a fixed time after this time.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The tenant that the metadata names. The handler must treat an unknown tenant
    /// differently from no tenant.
    #[must_use]
    pub fn tenant(&self) -> &NamedTenant {
        &self.tenant
    }

    /// The call's request id, IP address and user agent.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// A subject with a valid token of a live session. The gate admitted the subject to the method.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) tenant: TenantId,
    pub(super) home: TenantId,
    pub(super) user: UserId,
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

    /// The caller's own tenant. It equals [`Self::tenant`], except for platform staff who work
    /// in another tenant.
    #[must_use]
    pub fn home(&self) -> TenantId {
        self.home
    }

    /// The identity that page tokens are bound to.
    #[must_use]
    pub fn asker(&self) -> PageCaller {
        PageCaller { home: self.home, user: self.user, tenant: self.tenant }
    }

    /// The id of the subject.
    #[must_use]
    pub fn user(&self) -> UserId {
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

    /// Whether the caller is platform staff that may work in other tenants.
    #[must_use]
    pub fn may_act_across(&self) -> bool {
        may_act_across(&self.standing)
    }

    /// The call's request id, IP address and user agent.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The audit record of the refusal of this caller's call, for the given method and reason.
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
            tenant: Some(self.home),
            user: Some(self.user),
            session: Some(self.session),
            origin: self.origin.clone(),
        }
    }
}

/// Whether the subject with this standing is platform staff that may work in other tenants.
pub(super) fn may_act_across(standing: &Standing) -> bool {
    standing.tenant.get().is_platform && standing.holds(ACT_ACROSS)
}

/// The subjects whose data a caller may access, on a method that admits callers for their own data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// All subjects of the tenant: the caller holds the permission.
    Tenant,
    /// Only the caller. Contains the caller's id.
    Own(UserId),
}

impl Reach {
    /// Whether the caller may access the data of this user.
    #[must_use]
    pub fn has(self, user: UserId) -> bool {
        match self {
            Self::Tenant => true,
            Self::Own(own) => own == user,
        }
    }

    /// The only user whose data the caller may access; `None` when the caller may access the data
    /// of all users.
    #[must_use]
    pub fn owner(self) -> Option<UserId> {
        match self {
            Self::Tenant => None,
            Self::Own(user) => Some(user),
        }
    }
}

/// A caller of a method that admits callers for their own data. The caller is available only
/// together with its reach.
#[derive(Clone, Debug)]
pub struct SelfOrPermitted {
    caller: Caller,
    reach: Reach,
}

impl SelfOrPermitted {
    pub(super) fn new(caller: Caller, reach: Reach) -> Self {
        Self { caller, reach }
    }

    /// The caller, and the user whose data the request concerns: the user that the request names,
    /// or the caller when the request names no user.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the request names another user and the caller lacks the
    /// permission.
    pub fn acting_for(&self, user: Option<UserId>) -> Result<(&Caller, UserId)> {
        let user = user.unwrap_or(self.caller.user);
        match self.reach {
            Reach::Own(own) if own != user => Err(Error::refused(
                ErrorReason::PermissionMissing,
                "the permission is missing, and this is not the caller's own",
            )),
            _ => Ok((&self.caller, user)),
        }
    }

    /// The caller and its reach, for a request on a resource whose owner is not known yet. For a
    /// resource that the caller may not access, the handler must return the same error as for a
    /// resource that does not exist.
    #[must_use]
    pub fn within(&self) -> (&Caller, Reach) {
        (&self.caller, self.reach)
    }
}
