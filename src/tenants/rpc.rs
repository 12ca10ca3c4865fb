//! The gRPC methods of `TenantService`.

use tonic::{Request, Response, Status};

use super::{TenantState, Tenants, store::TenantRow};
use crate::{
    api::update_mask::etag,
    clock::timestamp,
    gate,
    proto::{
        json,
        v1::{
            self, CreateTenantRequest, CreateTenantResponse, DeleteTenantRequest,
            DeleteTenantResponse, GetTenantRequest, GetTenantResponse, ListTenantsRequest,
            ListTenantsResponse, ReactivateTenantRequest, ReactivateTenantResponse,
            SuspendTenantRequest, SuspendTenantResponse, Tenant, UpdateTenantRequest,
            UpdateTenantResponse, tenant_service_server::TenantService,
        },
    },
};

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&write_caller, message).await?))
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let caller = gate::caller(&request)?;
        let row = self.get(&caller, &request.get_ref().tenant).await?;
        Ok(Response::new(GetTenantResponse { tenant: Some(row.into()) }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let (tenants, next_page_token) = self.list(&caller, request.get_ref()).await?;
        Ok(Response::new(ListTenantsResponse { tenants, next_page_token }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let may_work_in_other_tenants = write_caller.may_work_in_other_tenants();
        let tenant = self
            .find_reachable(write_caller.tenant(), may_work_in_other_tenants, &message.tenant)
            .await?;
        Ok(Response::new(self.update(&write_caller, tenant, message).await?))
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let tenant = self.find(write_caller.own_tenant(), &request.get_ref().tenant).await?;
        let (row, consistency_token) =
            self.set_state(&write_caller, tenant, TenantState::Suspended).await?;
        Ok(Response::new(SuspendTenantResponse { tenant: Some(row.into()), consistency_token }))
    }

    async fn reactivate_tenant(
        &self,
        request: Request<ReactivateTenantRequest>,
    ) -> Result<Response<ReactivateTenantResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let tenant = self.find(write_caller.own_tenant(), &request.get_ref().tenant).await?;
        let (row, consistency_token) =
            self.set_state(&write_caller, tenant, TenantState::Active).await?;
        Ok(Response::new(ReactivateTenantResponse { tenant: Some(row.into()), consistency_token }))
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let tenant = self.find(write_caller.own_tenant(), &message.tenant).await?;
        let consistency_token = self.delete(&write_caller, tenant, &message.etag).await?;
        Ok(Response::new(DeleteTenantResponse { consistency_token }))
    }
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        let settings = row.read_settings().as_ref().map(json::to_struct);
        Self {
            id: row.tenant_id.to_string(),
            name: row.name,
            slug: row.slug,
            settings,
            state: v1::TenantState::from(row.state).into(),
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}
