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
        acting: &WriteCaller,
        message: CreateTenantRequest,
    ) -> Result<CreateTenantResponse> {
        let key = Key {
            tenant: acting.home(),
            actor: Some(acting.user()),
            method: "CreateTenant",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let settings =
            message.settings.as_ref().map(|s| json::object("settings", s)).transpose()?;
        let id = TenantId::new();
        let data_key = self.db.generate_data_key(id).await?;
        let tx = self.db.begin(acting.home()).await?;
        idempotency::once(tx, &key, async |tx| {
            let opens = settings.as_ref().is_some_and(settings::opens_registration);
            let caller = admit(tx, acting, opens).await?;
            tx.switch_tenant(id).await?;
            let new = NewTenant {
                id,
                name: &message.name,
                slug: &slug_for(&message.slug, &message.name),
                settings: settings.unwrap_or_default(),
                password_policy: self.password_policy,
                data_key: &data_key,
            };
            create(tx, new).await?;
            let row = store::get(tx, id).await?;
            let event = audited::made(Event::new(EventKind::TenantCreated).target(id.0), &row);
            let consistency_token = audit::record_with_token(tx, &caller.actor(), event).await?;
            // The response is stored in the caller's tenant.
            tx.switch_tenant(acting.home()).await?;
            Ok((id.0, CreateTenantResponse { tenant: Some(row.into()), consistency_token }))
        })
        .await
    }
}

/// Admits the caller. A caller that opens registration gives the role of new users to everybody, so
/// it must hold that role's permissions.
async fn admit<'a>(tx: &mut TenantTx, acting: &'a WriteCaller, opens: bool) -> Result<&'a Caller> {
    if !opens {
        return acting.authorize_write(tx, acting.home()).await;
    }
    let system::SystemRole { level, permissions, .. } = system::SELF_REGISTRATION_ROLE;
    let permissions: Vec<_> = permissions.iter().map(|p| (*p).to_owned()).collect();
    let role = RoleGrant { level: level as i16, permissions: &permissions, is_system: true };
    acting.authorize_default_role(tx, acting.home(), Some(role)).await
}

/// The slug of a new tenant: the given one, or one that is derived from the name.
#[must_use]
pub fn slug_for(given: &str, name: &str) -> String {
    if given.is_empty() { slug::from_name(name) } else { given.to_owned() }
}

/// A tenant to create.
pub struct NewTenant<'a> {
    /// The id, which must be the transaction's tenant.
    pub id: TenantId,
    pub name: &'a str,
    pub slug: &'a str,
    pub settings: Map<String, Value>,
    /// The server's policy.
    pub password_policy: PasswordPolicy,
    pub data_key: &'a NewDataKey,
}

/// Creates the tenant, and returns its `org_admin` role.
///
/// # Errors
/// `INVALID_ARGUMENT` for invalid settings, `ALREADY_EXISTS` when the slug is taken.
pub async fn create(tx: &mut TenantTx, new: NewTenant<'_>) -> Result<RoleId> {
    settings::check(&new.settings, new.password_policy)?;
    let settings = Value::Object(new.settings);
    store::insert(tx, new.id, new.name, new.slug, &settings, new.data_key).await?;
    system::create(tx, new.id, system::ORGANIZATION).await
}
