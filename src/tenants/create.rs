//! `CreateTenant`, and the creation of a tenant with its system roles.

use serde_json::{Map, Value};

use super::{Tenants, audited, settings, slug, store};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    db::TenantTx,
    error::Result,
    gate::{Caller, RoleGrant, WriteCaller},
    ids::{RoleId, TenantId},
    passwords::PasswordPolicy,
    privacy::NewDataKey,
    proto::{
        json,
        v1::{CreateTenantRequest, CreateTenantResponse},
    },
    roles::system,
};

impl Tenants {
    pub(super) async fn create(
        &self,
        write_caller: &WriteCaller,
        message: CreateTenantRequest,
    ) -> Result<CreateTenantResponse> {
        let key = Key {
            tenant: write_caller.own_tenant(),
            actor: Some(write_caller.user()),
            method: "CreateTenant",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let settings =
            message.settings.as_ref().map(|s| json::object("settings", s)).transpose()?;
        let id = TenantId::new();
        let data_key = self.db.generate_data_key(id).await?;
        let tx = self.db.begin(write_caller.own_tenant()).await?;
        idempotency::once(tx, &key, async |tx| {
            let opens_registration = settings.as_ref().is_some_and(settings::opens_registration);
            let caller = admit(tx, write_caller, opens_registration).await?;
            tx.switch_tenant(id).await?;
            let new_tenant = NewTenant {
                id,
                name: &message.name,
                slug: &slug_for(&message.slug, &message.name),
                settings: settings.unwrap_or_default(),
                password_policy: self.password_policy,
                data_key: &data_key,
            };
            create(tx, new_tenant).await?;
            let row = store::get(tx, id).await?;
            let event =
                audited::with_tenant(Event::new(EventKind::TenantCreated).target(id.0), &row);
            let consistency_token = audit::record_with_token(tx, &caller.actor(), event).await?;
            // The response is stored in the caller's tenant.
            tx.switch_tenant(write_caller.own_tenant()).await?;
            Ok((id.0, CreateTenantResponse { tenant: Some(row.into()), consistency_token }))
        })
        .await
    }
}

/// Checks the rights of the caller, and returns the caller. Open registration gives everybody the
/// role of new users, so a caller that opens registration must hold the permissions of that role.
async fn admit<'a>(
    tx: &mut TenantTx,
    write_caller: &'a WriteCaller,
    opens_registration: bool,
) -> Result<&'a Caller> {
    if !opens_registration {
        return write_caller.authorize_write(tx, write_caller.own_tenant()).await;
    }
    let system::SystemRole { level, permissions, .. } = system::SELF_REGISTRATION_ROLE;
    let permissions: Vec<_> = permissions.iter().map(|p| (*p).to_owned()).collect();
    let role = RoleGrant { level: level as i16, permissions: &permissions, is_system: true };
    write_caller.authorize_default_role(tx, write_caller.own_tenant(), Some(role)).await
}

/// The slug of a new tenant: the requested slug, or a slug derived from the name when no slug is
/// requested.
#[must_use]
pub fn slug_for(requested: &str, name: &str) -> String {
    if requested.is_empty() { slug::from_name(name) } else { requested.to_owned() }
}

/// A tenant to create.
pub struct NewTenant<'a> {
    /// The id of the new tenant. The transaction must already work in this tenant.
    pub id: TenantId,
    pub name: &'a str,
    pub slug: &'a str,
    pub settings: Map<String, Value>,
    /// The server's password policy.
    pub password_policy: PasswordPolicy,
    pub data_key: &'a NewDataKey,
}

/// Creates the tenant. Returns the id of its `org_admin` role.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` for invalid settings, and `ALREADY_EXISTS` when another tenant has
/// the slug.
pub async fn create(tx: &mut TenantTx, new_tenant: NewTenant<'_>) -> Result<RoleId> {
    settings::check(&new_tenant.settings, new_tenant.password_policy)?;
    let settings = Value::Object(new_tenant.settings);
    store::insert(
        tx,
        new_tenant.id,
        new_tenant.name,
        new_tenant.slug,
        &settings,
        new_tenant.data_key,
    )
    .await?;
    system::create(tx, new_tenant.id, system::ORGANIZATION).await
}
