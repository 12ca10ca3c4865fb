//! `CreateRole`, `UpdateRole` and `DeleteRole`.

use super::{
    Roles, audited,
    last_admin::AdminGuard,
    store::{self, NewRole, RoleRow, TotalsOfOtherRoles},
    system,
};
use crate::{
    api::{
        bounds::{PERMISSION_BYTES_OF_ROLES, PERMISSIONS_OF_ROLES, ROLES_OF_TENANT},
        idempotency::{self, Key},
        names,
        update_mask::{Mask, check_etag},
    },
    audit::{self, Event, EventKind},
    error::{Error, Result},
    gate::{Caller, RoleGrant, WriteCaller},
    ids::RoleId,
    proto::v1::{
        CreateRoleRequest, CreateRoleResponse, ErrorReason, RoleLevel, UpdateRoleRequest,
        UpdateRoleResponse,
    },
    tenants,
};

/// Maximum total size of the permissions of one role, in bytes.
const MAX_BYTES: i64 = 64 * 1024;

impl Roles {
    pub(super) async fn create(
        &self,
        write_caller: &WriteCaller,
        message: CreateRoleRequest,
    ) -> Result<CreateRoleResponse> {
        let tenant = write_caller.tenant();
        let key = Key {
            tenant,
            actor: Some(write_caller.user()),
            method: "CreateRole",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let level = parse_level(message.level())?;
        let permissions = normalize_permissions(message.permissions.clone())?;
        let tx = self.db.begin(tenant).await?;
        idempotency::once(tx, &key, async |tx| {
            // Lock before the permission check: during a wait for the lock after the check, the
            // caller could lose its permissions.
            tenants::store::lock(tx, tenant).await?;
            let grant = RoleGrant { level, permissions: &permissions, is_system: message.system };
            if message.system && message.name == system::MEMBER {
                // Everybody who registers gets this role, so the caller must also hold the role's
                // rights without an expiry.
                write_caller.authorize_default_role(tx, tenant, Some(grant)).await?;
            }
            let caller = write_caller.authorize_role(tx, grant).await?;
            if !message.system {
                refuse_system_role_name(&message.name)?;
            }
            let new_role = NewRole {
                id: RoleId::new(),
                name: &message.name,
                level,
                permissions: &permissions,
                system: message.system,
            };
            refuse_platform_level(caller, level)?;
            let totals = store::totals_except(tx, tenant, new_role.id).await?;
            ROLES_OF_TENANT.check(totals.count + 1)?;
            totals.check_with(&permissions)?;
            let row = store::insert(tx, tenant, &new_role).await?;
            let event = Event::new(EventKind::RoleCreated).target(new_role.id.0);
            let event = audited::with_role(event, &row);
            let consistency_token = audit::record_with_token(tx, &caller.actor(), event).await?;
            Ok((new_role.id.0, CreateRoleResponse { role: Some(row.into()), consistency_token }))
        })
        .await
    }

    pub(super) async fn update(
        &self,
        write_caller: &WriteCaller,
        message: UpdateRoleRequest,
    ) -> Result<UpdateRoleResponse> {
        let tenant = write_caller.tenant();
        let role = RoleId::parse("role_id", &message.role_id)?;
        let fields = ["name", "level", "permissions"];
        let mask = Mask::read(message.update_mask.as_ref(), &fields)?;
        let new_level = message.level.is_some().then(|| message.level());
        let new_level = mask.take("level", new_level)?.map(parse_level).transpose()?;
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::lock_and_count(&mut tx, tenant).await?;
        let mut row = store::lock(&mut tx, tenant, role).await?;
        check_etag(&message.etag, row.version)?;
        let before = row.clone();
        if let Some(name) = mask.take("name", message.name)? {
            if name != row.name {
                refuse_system_role_name(&name)?;
                refuse_rename_of_built_in_role(&row)?;
            }
            row.name = name;
        }
        row.level = new_level.unwrap_or(row.level);
        if let Some(permissions) = mask.take_list("permissions", message.permissions) {
            row.permissions = normalize_permissions(permissions)?;
        }
        let caller = write_caller
            .authorize_role_change(&mut tx, role, RoleGrant::from(&before), RoleGrant::from(&row))
            .await?;
        refuse_platform_level(caller, row.level)?;
        let (count_before, bytes_before) = count_and_bytes(&before.permissions);
        let (count_after, bytes_after) = count_and_bytes(&row.permissions);
        // A role can always be made smaller, even if the tenant exceeds a limit.
        if count_after > count_before || bytes_after > bytes_before {
            let totals = store::totals_except(&mut tx, tenant, role).await?;
            totals.check_with(&row.permissions)?;
        }
        let row = store::update(&mut tx, &row).await?;
        admins.check_after_change(&mut tx).await?;
        let event = Event::new(EventKind::RoleUpdated).target(role.0);
        let event = audited::with_role_changes(event, &before, &row);
        let consistency_token = audit::finish(tx, &caller.actor(), event).await?;
        Ok(UpdateRoleResponse { role: Some(row.into()), consistency_token })
    }

    /// Deletes a role that no subject has. Returns the consistency token.
    pub(super) async fn delete(
        &self,
        write_caller: &WriteCaller,
        role: RoleId,
        etag: &str,
    ) -> Result<String> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let row = store::lock(&mut tx, tenant, role).await?;
        let caller = write_caller.authorize_role(&mut tx, RoleGrant::from(&row)).await?;
        check_etag(etag, row.version)?;
        store::delete(&mut tx, tenant, role).await?;
        let event = Event::new(EventKind::RoleDeleted).target(role.0);
        audit::finish(tx, &caller.actor(), audited::with_role(event, &row)).await
    }
}

fn parse_level(level: RoleLevel) -> Result<i16> {
    match level {
        RoleLevel::Unspecified => Err(Error::field("level", "must be set")),
        level => Ok(level as i16),
    }
}

/// Refuses a name that looks like the name of a system role. Access tokens contain the names of
/// roles, so a reader of a token could take the role for the system role.
fn refuse_system_role_name(name: &str) -> Result<()> {
    if names::is_built_in_role(name) {
        return Err(Error::refused(
            ErrorReason::RoleNameTaken,
            "the name is reserved for a system role",
        ));
    }
    Ok(())
}

/// Refuses another name for a role that each new tenant gets. Registration finds its role by the
/// name. With another role under this name, everybody who registers would get that role's rights.
fn refuse_rename_of_built_in_role(role: &RoleRow) -> Result<()> {
    if role.is_system && names::is_built_in_role(&role.name) {
        let text = "a role that each new tenant gets keeps its name";
        return Err(Error::refused(ErrorReason::SystemRole, text));
    }
    Ok(())
}

/// Refuses the level `PLATFORM_ADMIN` outside the platform tenant, even for platform staff who work
/// in another tenant.
fn refuse_platform_level(caller: &Caller, level: i16) -> Result<()> {
    let in_platform = caller.is_platform() && caller.tenant() == caller.own_tenant();
    if level >= RoleLevel::PlatformAdmin as i16 && !in_platform {
        return Err(Error::field(
            "level",
            "ROLE_LEVEL_PLATFORM_ADMIN is allowed only in the platform tenant",
        ));
    }
    Ok(())
}

/// Sorts the permissions, removes duplicates, and checks the total size.
fn normalize_permissions(mut permissions: Vec<String>) -> Result<Vec<String>> {
    permissions.sort_unstable();
    permissions.dedup();
    if count_and_bytes(&permissions).1 > MAX_BYTES {
        let text = format!("must have at most {MAX_BYTES} bytes in total");
        return Err(Error::field("permissions", text));
    }
    Ok(permissions)
}

/// The number of permissions and their total length in bytes.
fn count_and_bytes(permissions: &[String]) -> (i64, i64) {
    permissions.iter().fold((0, 0), |(count, bytes), permission| {
        (count + 1, bytes + i64::try_from(permission.len()).unwrap_or(i64::MAX))
    })
}

impl TotalsOfOtherRoles {
    /// Checks that the tenant's other roles and a role with these permissions together stay within
    /// the tenant's limits.
    ///
    /// # Errors
    /// Returns `LIMIT_REACHED` when a limit is exceeded.
    fn check_with(&self, permissions: &[String]) -> Result<()> {
        let (count, bytes) = count_and_bytes(permissions);
        PERMISSIONS_OF_ROLES.check(self.permissions + count)?;
        PERMISSION_BYTES_OF_ROLES.check(self.bytes + bytes)
    }
}
