//! TenantService over gRPC.

use tonic::{Request, Response, Status};

use super::{
    TenantRef, Tenants,
    store::{self, TenantRow},
};
use crate::{
    api::{
        filter::{Field, Filter, Kind},
        update_mask::etag,
    },
    audit::{self, Event},
    clock::timestamp,
    error::{Error, Result},
    gate,
    ids::TenantId,
    proto::{
        json,
        v1::{
            CreateTenantRequest, CreateTenantResponse, DeleteTenantRequest, DeleteTenantResponse,
            GetTenantRequest, GetTenantResponse, ListTenantsRequest, ListTenantsResponse,
            ReactivateTenantRequest, ReactivateTenantResponse, SuspendTenantRequest,
            SuspendTenantResponse, Tenant, TenantState, UpdateTenantRequest, UpdateTenantResponse,
            tenant_service_server::TenantService,
        },
    },
};

const FIELDS: &[Field] = &[
    Field {
        name: "state",
        kind: Kind::Choice("TENANT_STATE_", |name| TenantState::from_str_name(name).map(i32::from)),
    },
    Field { name: "slug", kind: Kind::Word },
    Field { name: "name", kind: Kind::Text },
];

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&acting, message).await?))
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let across = caller.may_act_across();
        let tenant = self.reachable(caller.tenant(), across, &request.get_ref().tenant).await?;
        let mut tx = self.db.begin(tenant).await?;
        let row = store::get(&mut tx, tenant).await?;
        if tenant != caller.tenant() {
            let event = Event::across_tenants("/tenantry.v1.TenantService/GetTenant");
            audit::record(&mut tx, tenant, &caller.actor(), event).await?;
            tx.commit().await?;
        }
        Ok(Response::new(GetTenantResponse { tenant: Some(row.into()) }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let filter = Filter::parse(&message.filter, FIELDS)?;
        let mut page = self.pages.begin(caller.asker(), &message)?;
        let (slug, state) = (filter.like("slug"), filter.choice("state").map(store::state_text));
        let mut tx = self.db.begin(caller.home()).await?;
        store::list(&mut tx, state, slug.as_deref(), &filter, &mut page).await?;
        let event = Event::across_tenants("/tenantry.v1.TenantService/ListTenants");
        audit::record(&mut tx, caller.home(), &caller.actor(), event).await?;
        tx.commit_record().await?;
        let (tenants, next_page_token) = page.finish()?;
        Ok(Response::new(ListTenantsResponse { tenants, next_page_token }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        let across = acting.may_act_across();
        let tenant = self.reachable(acting.tenant(), across, &message.tenant).await?;
        Ok(Response::new(self.update(&acting, tenant, message).await?))
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let acting = gate::acting(&request)?;
        let tenant = self.of_platform_staff(&request.get_ref().tenant).await?;
        let (row, consistency_token) =
            self.set_state(&acting, tenant, TenantState::Suspended).await?;
        Ok(Response::new(SuspendTenantResponse { tenant: Some(row.into()), consistency_token }))
    }

    async fn reactivate_tenant(
        &self,
        request: Request<ReactivateTenantRequest>,
    ) -> Result<Response<ReactivateTenantResponse>, Status> {
        let acting = gate::acting(&request)?;
        let tenant = self.of_platform_staff(&request.get_ref().tenant).await?;
        let (row, consistency_token) = self.set_state(&acting, tenant, TenantState::Active).await?;
        Ok(Response::new(ReactivateTenantResponse { tenant: Some(row.into()), consistency_token }))
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        let tenant = self.of_platform_staff(&message.tenant).await?;
        let consistency_token = self.delete(&acting, tenant, &message.etag).await?;
        Ok(Response::new(DeleteTenantResponse { consistency_token }))
    }
}

impl Tenants {
    /// The tenant that a request names: the call's own, or for who acts across tenants
    /// any. Another tenant looks as if it did not exist.
    async fn reachable(&self, own: TenantId, across: bool, named: &str) -> Result<TenantId> {
        if named.is_empty() {
            return Ok(own);
        }
        let found = super::find(&self.db, named).await?.ok_or_else(Error::not_found)?;
        if found.id == own || across {
            return Ok(found.id);
        }
        Err(Error::not_found())
    }

    /// The tenant that a request of the platform's staff names, whose method
    /// admits nobody else.
    async fn of_platform_staff(&self, named: &str) -> Result<TenantRef> {
        super::find(&self.db, named).await?.ok_or_else(Error::not_found)
    }
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        let state = match row.state.as_str() {
            "suspended" => TenantState::Suspended,
            _ => TenantState::Active,
        };
        let settings = row.read_settings().as_ref().map(json::to_struct);
        Self {
            id: row.tenant_id.to_string(),
            name: row.name,
            slug: row.slug,
            settings,
            state: state.into(),
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}
