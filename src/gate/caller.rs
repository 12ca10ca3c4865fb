//! The callers that the gate admitted. Only the gate makes these values.

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
    /// The metadata names a tenant that does not exist, by this id or slug.
    Unknown(String),
    /// The metadata names this tenant.
    Known(TenantRef),
}

impl NamedTenant {
    /// The named tenant, when it exists.
    #[must_use]
    pub fn known(&self) -> Option<&TenantRef> {
        match self {
            Self::Known(tenant) => Some(tenant),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Whether the metadata names another tenant than `tenant`.
    #[must_use]
    pub fn is_other_than(&self, tenant: TenantId) -> bool {
        match self {
            Self::Absent => false,
            Self::Unknown(_) => true,
            Self::Known(named) => named.id != tenant,
        }
    }
}

/// The caller of a public method. It is not authenticated.
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

    /// When the call's message was complete, before any lookup. Failed sign-ins are answered at
    /// a fixed time after it.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The tenant that the metadata names. The handler must decide how to treat an unknown
    /// tenant: it differs from no tenant.
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

/// A subject with a valid token of a live session, admitted to the method.
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

    /// The caller's own tenant. It equals [`Self::tenant`], except for platform staff at work
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

    /// The session of the caller's token. For a service account it is the id of its API key.
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

/// Whose things a caller may reach on a method that admits callers for their own things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everybody's things in the tenant: the caller holds the permission.
    Tenant,
    /// The caller's own things; this is the caller's id.
    Own(UserId),
}

impl Reach {
    /// Whether this user's things are within reach.
    #[must_use]
    pub fn has(self, user: UserId) -> bool {
        match self {
            Self::Tenant => true,
            Self::Own(own) => own == user,
        }
    }

    /// The only user whose things are within reach; `None` when everybody's are.
    #[must_use]
    pub fn owner(self) -> Option<UserId> {
        match self {
            Self::Tenant => None,
            Self::Own(user) => Some(user),
        }
    }
}

/// A caller of a method that admits callers for their own things. The caller is available only
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

    /// The caller and the user that it acts for: the user that the request names, or the caller
    /// itself when the request names none.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the request names another user and the caller lacks the
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

    /// The caller and its reach, for a request whose owner is not known yet. The handler must
    /// report a resource out of reach exactly as one that does not exist.
    #[must_use]
    pub fn within(&self) -> (&Caller, Reach) {
        (&self.caller, self.reach)
    }
}
