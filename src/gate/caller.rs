//! Who passed the gate: values that only the gate makes.

use std::{sync::Arc, time::Instant};

use crate::{
    api::paging::Asker,
    audit::{Actor, Event, EventKind, Origin, Refusal},
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
    permissions::Standing,
    proto::v1::ErrorReason,
    tenants::TenantRef,
    tokens::SubjectType,
};

/// What the platform's staff must hold to work in other tenants.
const ACT_ACROSS: &str = "tenant:act";

/// The tenant that a public call's metadata names.
#[derive(Clone, Debug)]
pub enum NamedTenant {
    /// None.
    Absent,
    /// One that does not exist, by this id or slug.
    Unknown(String),
    /// This one.
    Known(TenantRef),
}

impl NamedTenant {
    /// The tenant, where one that exists is named.
    #[must_use]
    pub fn known(&self) -> Option<&TenantRef> {
        match self {
            Self::Known(tenant) => Some(tenant),
            Self::Absent | Self::Unknown(_) => None,
        }
    }
}

/// Anybody, on a public method.
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

    /// When its message was there, before anything was looked up for it.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The tenant that the metadata names. Unknown is not absent: a handler
    /// must say what it makes of it.
    #[must_use]
    pub fn tenant(&self) -> &NamedTenant {
        &self.tenant
    }

    /// Where the call comes from.
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

    /// The caller's own tenant: the same, but for the platform's staff at work
    /// in another.
    #[must_use]
    pub fn home(&self) -> TenantId {
        self.home
    }

    /// The caller as a list's pages are bound to it.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker { home: self.home, user: self.user, tenant: self.tenant }
    }

    /// The subject.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }

    /// What kind of subject it is.
    #[must_use]
    pub fn subject_type(&self) -> SubjectType {
        self.subject_type
    }

    /// The session of the caller's token; a service account's API key.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the caller is of the platform tenant.
    #[must_use]
    pub fn is_platform(&self) -> bool {
        self.standing.tenant.get().is_platform
    }

    /// What the caller holds in its own tenant.
    #[must_use]
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether the caller is of the platform's staff who work in other tenants.
    #[must_use]
    pub fn may_act_across(&self) -> bool {
        may_act_across(&self.standing)
    }

    /// Where the call comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// That this caller must not make a call, as the audit trail has it.
    #[must_use]
    pub fn refusal(&self, method: &str, reason: &str) -> Refusal {
        let event =
            Event::new(EventKind::CallRefused).detail("method", method).detail("reason", reason);
        Refusal { tenant: self.tenant, subject: self.user, actor: self.actor(), event }
    }

    /// The caller as an audit event's actor.
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

/// Whether who holds this is of the platform's staff who work in other tenants.
pub(super) fn may_act_across(standing: &Standing) -> bool {
    standing.tenant.get().is_platform && standing.holds(ACT_ACROSS)
}

/// Whose things a caller reaches on a method that admits it for its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everybody's in the tenant: it holds the permission.
    Tenant,
    /// This user's, its own.
    Own(UserId),
}

impl Reach {
    /// Whether this user's things are within it.
    #[must_use]
    pub fn has(self, user: UserId) -> bool {
        match self {
            Self::Tenant => true,
            Self::Own(own) => own == user,
        }
    }

    /// The only user whose things are within it; `None` for everybody's.
    #[must_use]
    pub fn owner(self) -> Option<UserId> {
        match self {
            Self::Tenant => None,
            Self::Own(user) => Some(user),
        }
    }
}

/// A caller on a method that admits it for its own: the caller can't be had
/// without its reach.
#[derive(Clone, Debug)]
pub struct Reaching {
    caller: Caller,
    reach: Reach,
}

impl Reaching {
    pub(super) fn new(caller: Caller, reach: Reach) -> Self {
        Self { caller, reach }
    }

    /// The caller, to act for the user that the request names, itself when it
    /// names none.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for another user without the permission.
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

    /// The caller and its reach, for a request whose owner is not yet known:
    /// what is out of reach must look as if it did not exist.
    #[must_use]
    pub fn within(&self) -> (&Caller, Reach) {
        (&self.caller, self.reach)
    }
}
