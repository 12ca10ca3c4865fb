//! A caller of a method that asks for a permission to change something.

use std::net::IpAddr;

use super::{
    Access, Caller, Reach,
    caller::may_act_across,
    refusals::{permission_missing, tenant_mismatch},
};
use crate::{
    concurrency::pace::Pace,
    db::TenantTx,
    error::{Error, Result},
    ids::{ApiKeyId, RoleId, TenantId, UserId},
    permissions::{Permission, PermissionSet, Standing},
    power::{
        rule::{self, End, Rights},
        store,
    },
    proto::v1::ErrorReason,
    roles::{guard, store::RoleRow},
    tokens::SubjectType,
};

/// A caller whose act must be judged in its transaction, by the rule for power where it
/// touches what others hold: it is not handed out before, and without it nothing that was done
/// can be recorded.
#[derive(Clone, Debug)]
pub struct Acting {
    caller: Caller,
    reach: Reach,
    /// What admitted it, to be asked again where the rule is.
    access: Access,
}

/// What a role gives, or is about to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// The level.
    pub level: i16,
    /// The permissions, sorted.
    pub permissions: &'a [String],
    /// Whether it is a system role, which only the platform's administrators touch.
    pub is_system: bool,
}

impl<'a> From<&'a RoleRow> for Bundle<'a> {
    fn from(role: &'a RoleRow) -> Self {
        Self { level: role.level, permissions: &role.permissions, is_system: role.is_system }
    }
}

impl Bundle<'_> {
    /// Until when an actor holds all of it.
    async fn right_of(&self, actor: &Rights<'_>, pace: &mut Pace) -> Result<End> {
        actor.all(self.level.into(), self.permissions.iter().map(String::as_str), pace).await
    }
}

impl Acting {
    pub(super) fn new(caller: Caller, reach: Reach, access: Access) -> Self {
        Self { caller, reach, access }
    }

    /// The tenant that the call works in.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    /// The caller's own tenant.
    #[must_use]
    pub fn home(&self) -> TenantId {
        self.caller.home
    }

    /// The caller's address; `None` where there is none.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.caller.origin.ip
    }

    /// The caller's id.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.caller.user
    }

    /// Whether the caller is of the platform's staff who work in other tenants.
    #[must_use]
    pub fn may_act_across(&self) -> bool {
        self.caller.may_act_across()
    }

    /// The only subject whose things the caller may reach; `None` for everybody's.
    #[must_use]
    pub fn owner(&self) -> Option<UserId> {
        self.reach.owner()
    }

    /// The subject that a request names, the caller when it names none.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for another one without the permission.
    pub fn target(&self, named: Option<UserId>) -> Result<UserId> {
        let target = named.unwrap_or(self.caller.user);
        if self.reach.has(target) {
            return Ok(target);
        }
        Err(Error::refused(
            ErrorReason::PermissionMissing,
            "the permission is missing, and this is not the caller's own",
        ))
    }

    /// The caller, where the target is itself.
    #[must_use]
    pub fn itself(&self, target: UserId) -> Option<&Caller> {
        Some(&self.caller).filter(|caller| self.is_at_home() && caller.user == target)
    }

    /// Admits an act that touches nothing another subject holds. Call it after the last lock:
    /// what is waited for later is not seen. `tenant` is the one that the transaction works in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` or `PERMISSION_DENIED`, where the caller would not be admitted now.
    pub async fn acts(&self, tx: &mut TenantTx, tenant: TenantId) -> Result<&Caller> {
        self.readmitted(tx, tenant, None).await?;
        Ok(&self.caller)
    }

    /// Takes from a subject: the caller covers it now. The platform's staff in another
    /// tenant need no more than its level.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when there is no such subject.
    pub async fn takes(&self, tx: &mut TenantTx, target: UserId) -> Result<&Caller> {
        let Between { actor, other } = self.between(tx, target).await?;
        match other {
            Some(other) if self.is_at_home() => {
                rule::covers(&Rights::of(&actor).await, &other).await?;
            }
            Some(other) => rule::outranks(&actor, &other)?,
            None => {}
        }
        Ok(&self.caller)
    }

    /// Gives a subject a role until an end: the caller covers the subject, and holds for
    /// as long what the role permits.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when there is no such subject.
    pub async fn gives(
        &self,
        tx: &mut TenantTx,
        target: UserId,
        role: Bundle<'_>,
        end: End,
    ) -> Result<&Caller> {
        let Between { actor, other } = self.between(tx, target).await?;
        let actor = Rights::of(&actor).await;
        let right = role.right_of(&actor, &mut Pace::new()).await?;
        if let Some(other) = other {
            rule::covers(&actor, &other).await?;
        }
        rule::within(end, right)?;
        Ok(&self.caller)
    }

    /// Gives a role, for good, to whoever comes: to nobody when `None`. The caller holds
    /// without an end what it permits.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub async fn gives_newcomers(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        role: Option<Bundle<'_>>,
    ) -> Result<&Caller> {
        let actor = self.actor(tx, tenant, None).await?;
        if let Some(role) = role {
            let right = role.right_of(&Rights::of(&actor).await, &mut Pace::new()).await?;
            rule::within(End::Never, right)?;
        }
        Ok(&self.caller)
    }

    /// Lets a subject act again, or the caller act as it: the caller covers it for as long
    /// as its roles last.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when there is no such subject.
    pub async fn uses(&self, tx: &mut TenantTx, target: UserId) -> Result<&Caller> {
        let Between { actor, other } = self.between(tx, target).await?;
        if let Some(other) = other {
            rule::covers_to_the_end(&Rights::of(&actor).await, &other).await?;
        }
        Ok(&self.caller)
    }

    /// Makes a key for a service account, and says until when it may last: no longer than
    /// the caller holds `permission` and covers the account, nor, where the caller is a
    /// service account too, than its own key.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when there is no such account.
    pub async fn uses_by_key(
        &self,
        tx: &mut TenantTx,
        account: UserId,
        permission: &str,
    ) -> Result<(&Caller, End)> {
        let Between { actor, other } = self.between(tx, account).await?;
        let Some(other) = other else {
            let text = "a service account makes no key for itself";
            return Err(Error::refused(ErrorReason::OwnApiKey, text));
        };
        let actor = Rights::of(&actor).await;
        let covered = rule::ends_before(&actor, &other).await?;
        let mut until = covered.min(actor.permission(permission)?);
        if self.caller.subject_type == SubjectType::ServiceAccount {
            until = until.min(self.own_key_ends(tx).await?);
        }
        Ok((&self.caller, until))
    }

    /// Makes a role, or deletes one that nobody has: the caller holds what it permits.
    /// System roles are the platform administrators'.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub async fn holds(&self, tx: &mut TenantTx, role: Bundle<'_>) -> Result<&Caller> {
        let actor = self.actor(tx, self.caller.tenant, None).await?;
        guard::may_change(role.is_system, actor.is_platform_admin())?;
        role.right_of(&Rights::of(&actor).await, &mut Pace::new()).await?;
        Ok(&self.caller)
    }

    /// Changes a locked role for all who have it: the caller holds what it permits before
    /// and after, and without an end what is added. It covers all who have the role where
    /// more changes than its name.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub async fn changes(
        &self,
        tx: &mut TenantTx,
        role: RoleId,
        before: Bundle<'_>,
        after: Bundle<'_>,
    ) -> Result<&Caller> {
        let tenant = self.caller.tenant;
        let actor = self.actor(tx, tenant, None).await?;
        guard::may_change(before.is_system, actor.is_platform_admin())?;
        let (actor, mut pace) = (Rights::of(&actor).await, Pace::new());
        before.right_of(&actor, &mut pace).await?;
        after.right_of(&actor, &mut pace).await?;
        if before == after {
            return Ok(&self.caller);
        }
        for held in store::roles_of_holders(tx, tenant, role).await? {
            let permissions = &held.permissions;
            let held = Bundle { level: held.level, permissions, is_system: false };
            held.right_of(&actor, &mut pace).await?;
        }
        if after.level > before.level {
            rule::within(End::Never, actor.level(after.level.into())?)?;
        }
        let kept = PermissionSet::compile(before.permissions.to_vec());
        for text in after.permissions {
            if !Permission::parse(text).is_some_and(|permission| kept.covers(&permission)) {
                rule::within(End::Never, actor.permission(text)?)?;
            }
        }
        Ok(&self.caller)
    }

    fn is_at_home(&self) -> bool {
        self.caller.tenant == self.caller.home
    }

    /// Both sides of an act on a subject, which is locked first: what it is given or loses
    /// meanwhile is seen.
    async fn between(&self, tx: &mut TenantTx, target: UserId) -> Result<Between> {
        let tenant = self.caller.tenant;
        store::lock(tx, tenant, target).await?;
        let actor = self.actor(tx, tenant, Some(target)).await?;
        let other = match self.itself(target) {
            Some(_) => None,
            None => Some(store::standing(tx, tenant, target).await?),
        };
        Ok(Between { actor, other })
    }

    /// What the caller holds now, also where it is of the platform's staff and at work in
    /// another tenant. `target` is the subject that the act is on, if it is on one.
    async fn actor(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        target: Option<UserId>,
    ) -> Result<Standing> {
        let standing = self.readmitted(tx, tenant, target).await?;
        if tenant != self.caller.home && !may_act_across(&standing) {
            return Err(tenant_mismatch());
        }
        Ok(standing)
    }

    /// Asks again what admitted the call, for it may have waited since, for a lock or for its
    /// turn; what the caller holds now.
    async fn readmitted(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        target: Option<UserId>,
    ) -> Result<Standing> {
        let Caller { home, user, session, .. } = self.caller;
        if tenant != home {
            tx.enter(home).await?;
        }
        let (standing, is_live) = store::caller(tx, home, user, session).await?;
        if tenant != home {
            tx.enter(tenant).await?;
        }
        if !is_live || !standing.is_active() {
            let text = "the access token is not in force";
            return Err(Error::refused(ErrorReason::TokenInvalid, text));
        }
        if !self.is_at_home() && !may_act_across(&standing) {
            return Err(tenant_mismatch());
        }
        let may = match (self.access.reach(user, &standing), target) {
            (Some(Reach::Tenant), _) => true,
            (Some(Reach::Own(own)), Some(target)) => own == target,
            _ => false,
        };
        if may { Ok(standing) } else { Err(permission_missing(self.access.permissions())) }
    }

    async fn own_key_ends(&self, tx: &mut TenantTx) -> Result<End> {
        let (tenant, home) = (self.caller.tenant, self.caller.home);
        tx.enter(home).await?;
        let ends = store::key_ends(tx, home, ApiKeyId(self.caller.session.0)).await?;
        tx.enter(tenant).await?;
        Ok(ends)
    }
}

/// Both sides of an act.
struct Between {
    /// What the caller holds.
    actor: Standing,
    /// What the target holds; `None` where it is the caller itself.
    other: Option<Standing>,
}
