//! `UpdateTenant`.

use super::{
    Tenants, audited,
    settings::{self, KnownSettings},
    store,
};
use crate::{
    api::update_mask::{Mask, check_etag},
    audit::{self, Event, EventKind},
    db::TenantTx,
    error::{Error, Result},
    gate::{Caller, RoleGrant, WriteCaller},
    ids::TenantId,
    proto::{
        json,
        v1::{UpdateTenantRequest, UpdateTenantResponse},
    },
    roles,
};

impl Tenants {
    pub(super) async fn update(
        &self,
        write_caller: &WriteCaller,
        tenant: TenantId,
        message: UpdateTenantRequest,
    ) -> Result<UpdateTenantResponse> {
        let mask = Mask::read(message.update_mask.as_ref(), &["name", "slug", "settings"])?;
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant).await?;
        check_etag(&message.etag, row.version)?;
        let old_row = row.clone();
        let was_registration_open = KnownSettings::read(&row).self_registration;
        if let Some(name) = mask.take("name", message.name)? {
            row.name = name;
        }
        if let Some(slug) = mask.take("slug", message.slug)? {
            row.slug = slug;
        }
        if let Some(settings) = mask.take("settings", message.settings)? {
            let settings = json::object("settings", &settings)?;
            settings::check(&settings, self.password_policy)?;
            row.settings = json::to_stored(&settings)?;
        }
        let opens_registration =
            KnownSettings::read(&row).self_registration && !was_registration_open;
        let caller = admit(&mut tx, write_caller, tenant, opens_registration).await?;
        let row = store::update(&mut tx, &row).await?;
        let event = Event::new(EventKind::TenantUpdated).target(tenant.0);
        let event = audited::with_changes(event, &old_row, &row);
        let consistency_token = audit::finish(tx, &caller.actor(), event).await?;
        Ok(UpdateTenantResponse { tenant: Some(row.into()), consistency_token })
    }
}

/// Checks the rights of the caller, and returns the caller. Open registration gives everybody the
/// role of new users, so a caller that opens registration must hold the permissions of that role.
///
/// # Errors
/// Returns `PERMISSION_DENIED` when the caller lacks a permission, and `INVALID_ARGUMENT` when the
/// tenant has no role for new users.
async fn admit<'a>(
    tx: &mut TenantTx,
    write_caller: &'a WriteCaller,
    tenant: TenantId,
    opens_registration: bool,
) -> Result<&'a Caller> {
    if !opens_registration {
        return write_caller.authorize_default_role(tx, tenant, None).await;
    }
    let Some(role) =
        roles::store::self_registration_role(tx, tenant, roles::system::MEMBER).await?
    else {
        write_caller.authorize_default_role(tx, tenant, None).await?;
        let text =
            "must not be true in the platform tenant, or if the system role member is missing";
        return Err(Error::field("settings.self_registration", text));
    };
    let role = roles::store::lock(tx, tenant, role).await?;
    write_caller.authorize_default_role(tx, tenant, Some(RoleGrant::from(&role))).await
}
