//! `GetTenant` and `ListTenants`. Reads across tenants are recorded in the audit trail.

use super::{
    Tenants,
    store::{self, TenantRef, TenantRow},
};
use crate::{
    api::filter::{Field, Filter, Kind},
    audit::{self, Event},
    error::{Error, Result},
    gate::Caller,
    ids::TenantId,
    proto::v1::{self, ListTenantsRequest, Tenant},
};

const FIELDS: &[Field] = &[
    Field {
        name: "state",
        kind: Kind::Enum("TENANT_STATE_", |name| {
            v1::TenantState::from_str_name(name).map(i32::from)
        }),
    },
    Field { name: "slug", kind: Kind::Word },
    Field { name: "name", kind: Kind::Text },
];

impl Tenants {
    pub(super) async fn get(&self, caller: &Caller, key: &str) -> Result<TenantRow> {
        let tenant =
            self.find_reachable(caller.tenant(), caller.may_work_in_other_tenants(), key).await?;
        let mut tx = self.db.begin(tenant).await?;
        let row = store::get(&mut tx, tenant).await?;
        if tenant != caller.tenant() {
            let event = Event::across_tenants("/tenantry.v1.TenantService/GetTenant");
            audit::record(&mut tx, &caller.actor(), event).await?;
            tx.commit().await?;
        }
        Ok(row)
    }

    /// A page of tenants and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        message: &ListTenantsRequest,
    ) -> Result<(Vec<Tenant>, String)> {
        let filter = Filter::parse(&message.filter, FIELDS)?;
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let state = filter.enum_value("state").map(|state: v1::TenantState| state.into());
        let slug = filter.like("slug");
        let mut tx = self.db.begin(caller.own_tenant()).await?;
        store::list(&mut tx, state, slug.as_deref(), &filter, &mut page).await?;
        let event = Event::across_tenants("/tenantry.v1.TenantService/ListTenants");
        audit::record(&mut tx, &caller.actor(), event).await?;
        tx.commit_without_waiting().await?;
        page.finish()
    }

    /// Finds the tenant with the id or slug `key`; `own_tenant` when the key is empty. When the
    /// caller may not act across tenants, the error for another tenant is the same as for a tenant
    /// that does not exist.
    pub(super) async fn find_reachable(
        &self,
        own_tenant: TenantId,
        may_work_in_other_tenants: bool,
        key: &str,
    ) -> Result<TenantId> {
        if key.is_empty() {
            return Ok(own_tenant);
        }
        let tenant = self.find(own_tenant, key).await?;
        if tenant.id == own_tenant || may_work_in_other_tenants {
            return Ok(tenant.id);
        }
        Err(Error::not_found())
    }

    /// The tenant with this id or slug. `charged_tenant` is the tenant of the caller.
    pub(super) async fn find(&self, charged_tenant: TenantId, key: &str) -> Result<TenantRef> {
        store::find(&self.db, charged_tenant, key).await?.ok_or_else(Error::not_found)
    }
}
