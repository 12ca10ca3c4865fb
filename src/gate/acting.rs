//! The caller of a method that requires a permission to change something.

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

/// A caller whose act is checked inside its transaction. The transaction admits the caller
/// again. Where the act affects what other subjects hold, it also applies the rule for power
/// (`power/rule.rs`). The [`Caller`] is returned only after these checks, and nothing can be
/// recorded in the audit trail without it.
///
/// A caller *covers* a subject when its level is no lower than that of each role of the
/// subject, and when it holds each permission of these roles.
#[derive(Clone, Debug)]
pub struct WriteCaller {
    caller: Caller,
    reach: Reach,
    /// The access policy that admitted the caller. The transaction checks it again.
    access: Access,
}

/// The level and the permissions that a role gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RoleGrant<'a> {
    /// The role's level. A higher number has more power.
    pub level: i16,
    /// The role's permissions, sorted.
    pub permissions: &'a [String],
    /// Whether the role is a system role. Only platform administrators change system roles.
    pub is_system: bool,
}

impl<'a> From<&'a RoleRow> for RoleGrant<'a> {
    fn from(role: &'a RoleRow) -> Self {
        Self { level: role.level, permissions: &role.permissions, is_system: role.is_system }
    }
}

impl RoleGrant<'_> {
    /// The end of an actor's right to the level and all permissions.
    async fn right_of(&self, actor: &Rights<'_>, pace: &mut Pace) -> Result<End> {
        actor.all(self.level.into(), self.permissions.iter().map(String::as_str), pace).await
    }
}

impl WriteCaller {
    pub(super) fn new(caller: Caller, reach: Reach, access: Access) -> Self {
        Self { caller, reach, access }
    }

    /// The tenant that the call works in. It differs from [`Self::home`] for platform staff at
    /// work in another tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    /// The caller's own tenant.
    #[must_use]
    pub fn home(&self) -> TenantId {
        self.caller.home
    }

    /// The caller's IP address; `None` when the connection has none.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.caller.origin.ip
    }

    /// The id of the caller's subject.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.caller.user
    }

    /// Whether the caller is platform staff that may work in other tenants.
    #[must_use]
    pub fn may_act_across(&self) -> bool {
        self.caller.may_act_across()
    }

    /// The only subject whose things the caller may reach; `None` when it may reach everybody's
    /// in the tenant.
    #[must_use]
    pub fn owner(&self) -> Option<UserId> {
        self.reach.owner()
    }

    /// The subject that a request names, or the caller when the request names none.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the request names another subject and the caller lacks the
    /// permission.
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

    /// The caller, when it is itself the target.
    #[must_use]
    pub fn itself(&self, target: UserId) -> Option<&Caller> {
        Some(&self.caller).filter(|caller| self.is_at_home() && caller.user == target)
    }

    /// Admits an act that does not affect what another subject holds. Call this after the
    /// transaction's last lock: a change that commits during a later wait is not seen. `tenant`
    /// is the tenant that the transaction works in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` or `PERMISSION_DENIED` when the caller would not be admitted now.
    pub async fn authorize_write(&self, tx: &mut TenantTx, tenant: TenantId) -> Result<&Caller> {
        self.readmitted(tx, tenant, None).await?;
        Ok(&self.caller)
    }

    /// Admits an act that takes something from a subject: the caller must cover the subject
    /// now. Platform staff in another tenant need only a level that is not lower than the
    /// subject's.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when the subject does not exist.
    pub async fn authorize_take(&self, tx: &mut TenantTx, target: UserId) -> Result<&Caller> {
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

    /// Admits an act that gives a subject a role until `end`: the caller must cover the
    /// subject, and must hold the role's level and permissions until `end`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when the subject does not exist.
    pub async fn authorize_give(
        &self,
        tx: &mut TenantTx,
        target: UserId,
        role: RoleGrant<'_>,
        end: End,
    ) -> Result<&Caller> {
        let Between { actor, other } = self.between(tx, target).await?;
        let actor = Rights::of(&actor).await;
        let right = role.right_of(&actor, &mut Pace::new()).await?;
        if let Some(other) = other {
            rule::covers(&actor, &other).await?;
        }
        rule::check_end(end, right)?;
        Ok(&self.caller)
    }

    /// Admits an act that gives every newcomer a role without an end; `None` when it gives no
    /// role. The caller must hold the role's level and permissions without an end.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the caller does not hold them, or would not be admitted now.
    pub async fn authorize_default_role(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        role: Option<RoleGrant<'_>>,
    ) -> Result<&Caller> {
        let actor = self.actor(tx, tenant, None).await?;
        if let Some(role) = role {
            let right = role.right_of(&Rights::of(&actor).await, &mut Pace::new()).await?;
            rule::check_end(End::Never, right)?;
        }
        Ok(&self.caller)
    }

    /// Admits an act that lets a subject act again, or lets the caller act as the subject: the
    /// caller must cover the subject for as long as the subject's roles last.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when the subject does not exist.
    pub async fn authorize_use(&self, tx: &mut TenantTx, target: UserId) -> Result<&Caller> {
        let Between { actor, other } = self.between(tx, target).await?;
        if let Some(other) = other {
            rule::covers_while_target_holds(&Rights::of(&actor).await, &other).await?;
        }
        Ok(&self.caller)
    }

    /// Admits the creation of an API key for a service account, and returns the latest end that
    /// the key may have. That is the time until which the caller holds `permission` and covers
    /// the account. When the caller is a service account too, it is no later than the end of
    /// its own key.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, or `NOT_FOUND` when the account does not exist.
    pub async fn authorize_api_key(
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
        let covered = rule::covered_until(&actor, &other).await?;
        let mut until = covered.min(actor.permission(permission)?);
        if self.caller.subject_type == SubjectType::ServiceAccount {
            until = until.min(self.own_key_ends(tx).await?);
        }
        Ok((&self.caller, until))
    }

    /// Admits the creation of a role, or the deletion of a role that nobody has: the caller
    /// must hold the role's level and permissions. Only platform administrators may do this
    /// with system roles.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the caller does not hold them, or would not be admitted now.
    pub async fn authorize_role(&self, tx: &mut TenantTx, role: RoleGrant<'_>) -> Result<&Caller> {
        let actor = self.actor(tx, self.caller.tenant, None).await?;
        guard::may_change(role.is_system, actor.is_platform_admin())?;
        role.right_of(&Rights::of(&actor).await, &mut Pace::new()).await?;
        Ok(&self.caller)
    }

    /// Admits the change of a locked role. The caller must hold the role's level and
    /// permissions as they were and as they will be. It must hold an added permission or a
    /// higher level without an end. When more than the name changes, the caller must also cover
    /// all subjects that have the role.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the caller may not change the role.
    pub async fn authorize_role_change(
        &self,
        tx: &mut TenantTx,
        role: RoleId,
        before: RoleGrant<'_>,
        after: RoleGrant<'_>,
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
            let held = RoleGrant { level: held.level, permissions, is_system: false };
            held.right_of(&actor, &mut pace).await?;
        }
        if after.level > before.level {
            rule::check_end(End::Never, actor.level(after.level.into())?)?;
        }
        let kept = PermissionSet::compile(before.permissions.to_vec());
        for text in after.permissions {
            if !Permission::parse(text).is_some_and(|permission| kept.covers(&permission)) {
                rule::check_end(End::Never, actor.permission(text)?)?;
            }
        }
        Ok(&self.caller)
    }

    fn is_at_home(&self) -> bool {
        self.caller.tenant == self.caller.home
    }

    /// Reads both sides of an act on a subject. It locks the subject first, so that a role that
    /// is given or taken concurrently is seen.
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

    /// What the caller holds now. Platform staff in another tenant must still be allowed to
    /// work there. `target` is the subject of the act; `None` when the act is not on a subject.
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

    /// Checks again what admitted the call, because the call may have waited since for a lock
    /// or a permit. Returns what the caller holds now.
    async fn readmitted(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        target: Option<UserId>,
    ) -> Result<Standing> {
        let Caller { home, user, session, .. } = self.caller;
        if tenant != home {
            tx.switch_tenant(home).await?;
        }
        let (standing, is_live) = store::caller(tx, home, user, session).await?;
        if tenant != home {
            tx.switch_tenant(tenant).await?;
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
        tx.switch_tenant(home).await?;
        let ends = store::key_ends(tx, home, ApiKeyId(self.caller.session.0)).await?;
        tx.switch_tenant(tenant).await?;
        Ok(ends)
    }
}

/// The caller and the target of an act.
struct Between {
    /// What the caller holds.
    actor: Standing,
    /// What the target holds; `None` when the caller is the target.
    other: Option<Standing>,
}
