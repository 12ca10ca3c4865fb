//! The caller of a method that requires a permission to change something.

use std::net::IpAddr;

use super::{
    Access, Caller, Reach,
    caller::{ACT_ACROSS, may_work_in_other_tenants},
    refusals::{permission_missing, tenant_mismatch},
};
use crate::{
    concurrency::pace::Pace,
    db::TenantTx,
    error::{Error, Result},
    ids::{ApiKeyId, RoleId, SubjectId, TenantId},
    permissions::{Permission, PermissionSet, Standing},
    power::{
        rule::{self, Expiry, Rights},
        store,
    },
    proto::v1::ErrorReason,
    roles::{store::RoleRow, system},
    tokens::SubjectType,
};

/// A caller whose change is checked inside the transaction of the change. The functions
/// `authorize_*` admit the caller again. If the change affects the permissions of other subjects,
/// these functions also apply the rule for power (`power/rule.rs`). They return the [`Caller`] only
/// after these checks. Each change needs the [`Caller`] for its audit event, so no handler can skip
/// the checks.
///
/// A caller *covers* a subject when the caller's level is no lower than the level of each role of
/// the subject, and when the caller holds each permission of these roles.
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
    /// The time until which an actor holds the role's level and all its permissions. Fails when the
    /// actor does not hold them now.
    async fn held_until(&self, actor: &Rights<'_>, pace: &mut Pace) -> Result<Expiry> {
        actor
            .expiry_of_all(self.level.into(), self.permissions.iter().map(String::as_str), pace)
            .await
    }
}

impl WriteCaller {
    pub(super) fn new(caller: Caller, reach: Reach, access: Access) -> Self {
        Self { caller, reach, access }
    }

    /// The tenant that the call works in. This tenant differs from [`Self::own_tenant`] for
    /// platform staff who work in another tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    /// The caller's own tenant.
    #[must_use]
    pub fn own_tenant(&self) -> TenantId {
        self.caller.own_tenant
    }

    /// The caller's IP address; `None` when the connection has none.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.caller.origin.ip
    }

    /// The id of the caller's subject.
    #[must_use]
    pub fn user(&self) -> SubjectId {
        self.caller.user
    }

    /// Whether the caller is platform staff who may work in other tenants.
    #[must_use]
    pub fn may_work_in_other_tenants(&self) -> bool {
        self.caller.may_work_in_other_tenants()
    }

    /// The only subject whose data the caller may access; `None` when the caller may access the
    /// data of all subjects of the tenant.
    #[must_use]
    pub fn only_accessible_user(&self) -> Option<SubjectId> {
        self.reach.only_accessible_user()
    }

    /// The subject that a request names, or the caller if the request names no subject.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the request names another subject and the caller does not
    /// hold the permission.
    pub fn target(&self, requested: Option<SubjectId>) -> Result<SubjectId> {
        let target = requested.unwrap_or(self.caller.user);
        if self.reach.includes(target) {
            return Ok(target);
        }
        Err(Error::refused(
            ErrorReason::PermissionMissing,
            "the permission is missing, and the request is not for the caller's own data",
        ))
    }

    /// The caller, if the caller is the target. `None` if another subject is the target, or if the
    /// call works in another tenant.
    #[must_use]
    pub fn caller_if_target(&self, target: SubjectId) -> Option<&Caller> {
        Some(&self.caller).filter(|caller| self.is_in_own_tenant() && caller.user == target)
    }

    /// Admits a change that does not affect the permissions of another subject. Call this after the
    /// transaction's last lock: this check does not see a change that commits during a later wait.
    /// `tenant` is the tenant that the transaction works in.
    ///
    /// # Errors
    /// Returns `UNAUTHENTICATED` or `PERMISSION_DENIED` when the caller would not be admitted now.
    pub async fn authorize_write(&self, tx: &mut TenantTx, tenant: TenantId) -> Result<&Caller> {
        self.readmit(tx, tenant, None).await?;
        Ok(&self.caller)
    }

    /// Admits a change that takes rights from a subject or signs the subject out: the caller must
    /// cover the subject now. Platform staff in another tenant need only a level that is no lower
    /// than the level of the subject.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller may not make this change, and `NOT_FOUND` when
    /// the subject does not exist.
    pub async fn authorize_take(&self, tx: &mut TenantTx, target: SubjectId) -> Result<&Caller> {
        let Standings { actor, target: target_standing } = self.lock_and_read(tx, target).await?;
        match target_standing {
            Some(target_standing) if self.is_in_own_tenant() => {
                rule::check_covers(&self.rights(&actor).await?, &target_standing).await?;
            }
            Some(target_standing) => rule::check_outranks(&actor, &target_standing)?,
            // The caller is the target.
            None => {}
        }
        Ok(&self.caller)
    }

    /// Admits a change that gives a subject a role until `end`: the caller must cover the subject,
    /// and must hold the role's level and permissions until `end`.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller may not make this change, and `NOT_FOUND` when
    /// the subject does not exist.
    pub async fn authorize_give(
        &self,
        tx: &mut TenantTx,
        target: SubjectId,
        role: RoleGrant<'_>,
        end: Expiry,
    ) -> Result<&Caller> {
        let Standings { actor, target: target_standing } = self.lock_and_read(tx, target).await?;
        let actor = self.rights(&actor).await?;
        let held_until = role.held_until(&actor, &mut Pace::new()).await?;
        if let Some(target_standing) = target_standing {
            rule::check_covers(&actor, &target_standing).await?;
        }
        rule::check_end(end, held_until)?;
        Ok(&self.caller)
    }

    /// Admits a change that gives every new user a role without an expiry. `role` is `None` when
    /// the change gives no role. The caller must hold the role's level and permissions without an
    /// expiry.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller does not hold the role's level and permissions,
    /// or would not be admitted now.
    pub async fn authorize_default_role(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        role: Option<RoleGrant<'_>>,
    ) -> Result<&Caller> {
        let actor = self.read_actor(tx, tenant, None).await?;
        if let Some(role) = role {
            let held_until = role.held_until(&self.rights(&actor).await?, &mut Pace::new()).await?;
            rule::check_end(Expiry::Never, held_until)?;
        }
        Ok(&self.caller)
    }

    /// Admits a change that lets a disabled subject act again, or lets the caller act as the
    /// subject: the caller must cover the subject for as long as the subject's roles last.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller may not make this change, and `NOT_FOUND` when
    /// the subject does not exist.
    pub async fn authorize_use(&self, tx: &mut TenantTx, target: SubjectId) -> Result<&Caller> {
        let Standings { actor, target: target_standing } = self.lock_and_read(tx, target).await?;
        if let Some(target_standing) = target_standing {
            rule::check_covers_while_target_holds(&self.rights(&actor).await?, &target_standing)
                .await?;
        }
        Ok(&self.caller)
    }

    /// Admits the creation of an API key for a service account, and returns the latest expiry that
    /// the key may have: the time until which the caller holds `permission` and covers the account.
    /// If the caller is a service account too, this expiry is no later than the expiry of the
    /// caller's own key.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller may not create the key, and `NOT_FOUND` when the
    /// account does not exist.
    pub async fn authorize_api_key(
        &self,
        tx: &mut TenantTx,
        account: SubjectId,
        permission: &str,
    ) -> Result<(&Caller, Expiry)> {
        let Standings { actor, target: target_standing } = self.lock_and_read(tx, account).await?;
        let Some(target_standing) = target_standing else {
            let text = "a service account can't create an API key for itself";
            return Err(Error::refused(ErrorReason::OwnApiKey, text));
        };
        let actor = self.rights(&actor).await?;
        let covered_until = rule::covered_until(&actor, &target_standing).await?;
        let mut latest_expiry = covered_until.min(actor.expiry_of_permission(permission)?);
        if self.caller.subject_type == SubjectType::ServiceAccount {
            latest_expiry = latest_expiry.min(self.own_key_expiry(tx).await?);
        }
        Ok((&self.caller, latest_expiry))
    }

    /// Admits the creation of a role, or the deletion of a role that no subject has: the caller
    /// must hold the role's level and permissions. Only platform administrators may create or
    /// delete system roles.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller does not hold the role's level and permissions,
    /// or would not be admitted now.
    pub async fn authorize_role(&self, tx: &mut TenantTx, role: RoleGrant<'_>) -> Result<&Caller> {
        let actor = self.read_actor(tx, self.caller.tenant, None).await?;
        system::check_may_change(role.is_system, actor.is_platform_admin())?;
        role.held_until(&self.rights(&actor).await?, &mut Pace::new()).await?;
        Ok(&self.caller)
    }

    /// Admits the change of a role whose row the transaction has locked. The caller must hold the
    /// level and the permissions of the role before the change and after the change. If the change
    /// adds a permission or raises the level, the caller must hold the new permission or level
    /// without an expiry. If the level or the permissions change, the caller must also cover all
    /// subjects that have the role.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` when the caller may not change the role.
    pub async fn authorize_role_change(
        &self,
        tx: &mut TenantTx,
        role: RoleId,
        before: RoleGrant<'_>,
        after: RoleGrant<'_>,
    ) -> Result<&Caller> {
        let tenant = self.caller.tenant;
        let actor = self.read_actor(tx, tenant, None).await?;
        system::check_may_change(before.is_system, actor.is_platform_admin())?;
        let (actor, mut pace) = (self.rights(&actor).await?, Pace::new());
        before.held_until(&actor, &mut pace).await?;
        after.held_until(&actor, &mut pace).await?;
        if before == after {
            return Ok(&self.caller);
        }
        for other_role in store::roles_of_holders(tx, tenant, role).await? {
            let permissions = &other_role.permissions;
            // `held_until` does not read `is_system`.
            let grant = RoleGrant { level: other_role.level, permissions, is_system: false };
            grant.held_until(&actor, &mut pace).await?;
        }
        if after.level > before.level {
            rule::check_end(Expiry::Never, actor.expiry_of_level(after.level.into())?)?;
        }
        let old_permissions = PermissionSet::compile(before.permissions.to_vec());
        for text in after.permissions {
            if !Permission::parse(text)
                .is_some_and(|permission| old_permissions.covers(&permission))
            {
                rule::check_end(Expiry::Never, actor.expiry_of_permission(text)?)?;
            }
        }
        Ok(&self.caller)
    }

    /// The rights that the caller may give. Platform staff in another tenant may use their rights
    /// only while they hold `tenant:act`, so none of these rights lasts longer.
    async fn rights<'a>(&self, actor: &'a Standing) -> Result<Rights<'a>> {
        let rights = Rights::of(actor).await;
        if self.is_in_own_tenant() { Ok(rights) } else { rights.while_holding(ACT_ACROSS) }
    }

    fn is_in_own_tenant(&self) -> bool {
        self.caller.tenant == self.caller.own_tenant
    }

    /// Reads the standings of the caller and of the target. Locks the row of the target first, so
    /// that no other transaction assigns or unassigns a role of the target at the same time.
    async fn lock_and_read(&self, tx: &mut TenantTx, target: SubjectId) -> Result<Standings> {
        let tenant = self.caller.tenant;
        store::lock(tx, tenant, target).await?;
        let actor = self.read_actor(tx, tenant, Some(target)).await?;
        let target_standing = match self.caller_if_target(target) {
            Some(_) => None,
            None => Some(store::standing(tx, tenant, target).await?),
        };
        Ok(Standings { actor, target: target_standing })
    }

    /// Reads the current standing of the caller. Platform staff in another tenant must still be
    /// allowed to work there. `target` is the subject that the change affects; `None` when the
    /// change affects no single subject.
    async fn read_actor(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        target: Option<SubjectId>,
    ) -> Result<Standing> {
        let standing = self.readmit(tx, tenant, target).await?;
        if tenant != self.caller.own_tenant && !may_work_in_other_tenants(&standing) {
            return Err(tenant_mismatch());
        }
        Ok(standing)
    }

    /// Repeats the checks that admitted the call, because the call may have waited for a lock or a
    /// permit since then. Returns the current standing of the caller.
    async fn readmit(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        target: Option<SubjectId>,
    ) -> Result<Standing> {
        let Caller { own_tenant, user, session, .. } = self.caller;
        if tenant != own_tenant {
            tx.switch_tenant(own_tenant).await?;
        }
        let (standing, is_live) = store::caller_standing(tx, own_tenant, user, session).await?;
        if tenant != own_tenant {
            tx.switch_tenant(tenant).await?;
        }
        if !is_live || !standing.is_active() {
            let text = "the access token is not in force";
            return Err(Error::refused(ErrorReason::TokenInvalid, text));
        }
        if !self.is_in_own_tenant() && !may_work_in_other_tenants(&standing) {
            return Err(tenant_mismatch());
        }
        let is_allowed = match (self.access.reach(user, &standing), target) {
            (Some(Reach::Tenant), _) => true,
            (Some(Reach::Own(caller_id)), Some(target)) => caller_id == target,
            _ => false,
        };
        if is_allowed { Ok(standing) } else { Err(permission_missing(self.access.permissions())) }
    }

    /// Reads the expiry of the API key with which the caller signed in.
    async fn own_key_expiry(&self, tx: &mut TenantTx) -> Result<Expiry> {
        let (tenant, own_tenant) = (self.caller.tenant, self.caller.own_tenant);
        tx.switch_tenant(own_tenant).await?;
        let expiry = store::api_key_expiry(tx, own_tenant, ApiKeyId(self.caller.session.0)).await?;
        tx.switch_tenant(tenant).await?;
        Ok(expiry)
    }
}

/// The standings of the caller and of the target of a change.
struct Standings {
    /// The standing of the caller.
    actor: Standing,
    /// The standing of the target; `None` when the caller is the target.
    target: Option<Standing>,
}
