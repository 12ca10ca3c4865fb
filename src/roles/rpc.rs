//! The gRPC service `RoleService`.

use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{
    Roles,
    assignments::{AssignmentRow, Which},
    store::RoleRow,
};
use crate::{
    api::update_mask::etag,
    clock::timestamp,
    error::{Error, Result},
    gate::{self, Reach},
    ids::{RoleId, UserId},
    permissions::scope,
    proto::{
        json,
        v1::{
            AssignRoleRequest, AssignRoleResponse, CreateRoleRequest, CreateRoleResponse,
            DeleteRoleRequest, DeleteRoleResponse, GetRoleRequest, GetRoleResponse,
            ListRoleAssignmentsRequest, ListRoleAssignmentsResponse, ListRolesRequest,
            ListRolesResponse, Role, RoleAssignment, UnassignRoleRequest, UnassignRoleResponse,
            UpdateRoleRequest, UpdateRoleResponse, role_service_server::RoleService,
        },
    },
};

#[tonic::async_trait]
impl RoleService for Roles {
    async fn create_role(
        &self,
        request: Request<CreateRoleRequest>,
    ) -> Result<Response<CreateRoleResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&acting, message).await?))
    }

    async fn get_role(
        &self,
        request: Request<GetRoleRequest>,
    ) -> Result<Response<GetRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let role = RoleId::parse("role_id", &request.into_inner().role_id)?;
        let row = self.get(&caller, role).await?;
        Ok(Response::new(GetRoleResponse { role: Some(row.into()) }))
    }

    async fn list_roles(
        &self,
        request: Request<ListRolesRequest>,
    ) -> Result<Response<ListRolesResponse>, Status> {
        let caller = gate::caller(&request)?;
        let (roles, next_page_token) = self.list(&caller, request.get_ref()).await?;
        Ok(Response::new(ListRolesResponse { roles, next_page_token }))
    }

    async fn update_role(
        &self,
        request: Request<UpdateRoleRequest>,
    ) -> Result<Response<UpdateRoleResponse>, Status> {
        let acting = gate::acting(&request)?;
        Ok(Response::new(self.update(&acting, request.into_inner()).await?))
    }

    async fn delete_role(
        &self,
        request: Request<DeleteRoleRequest>,
    ) -> Result<Response<DeleteRoleResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        let role = RoleId::parse("role_id", &message.role_id)?;
        let consistency_token = self.delete(&acting, role, &message.etag).await?;
        Ok(Response::new(DeleteRoleResponse { consistency_token }))
    }

    async fn assign_role(
        &self,
        request: Request<AssignRoleRequest>,
    ) -> Result<Response<AssignRoleResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.assign(&acting, message).await?))
    }

    async fn unassign_role(
        &self,
        request: Request<UnassignRoleRequest>,
    ) -> Result<Response<UnassignRoleResponse>, Status> {
        let acting = gate::acting(&request)?;
        let message = request.into_inner();
        let user = UserId::parse("user_id", &message.user_id)?;
        let role = RoleId::parse("role_id", &message.role_id)?;
        let selection = selection(&message)?;
        let consistency_token = self.unassign(&acting, user, role, &selection).await?;
        Ok(Response::new(UnassignRoleResponse { consistency_token }))
    }

    async fn list_role_assignments(
        &self,
        request: Request<ListRoleAssignmentsRequest>,
    ) -> Result<Response<ListRoleAssignmentsResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let requested_user = UserId::parse_optional("user_id", &message.user_id)?;
        let (caller, user) = match reaching.within() {
            (caller, Reach::Tenant) => (caller, requested_user),
            (_, Reach::Own(own)) => reaching
                .acting_for(requested_user.or(Some(own)))
                .map(|(caller, user)| (caller, Some(user)))?,
        };
        let (role_assignments, next_page_token) =
            self.list_assignments(caller, user, &message).await?;
        Ok(Response::new(ListRoleAssignmentsResponse { role_assignments, next_page_token }))
    }
}

/// The assignments that a request removes.
fn selection(request: &UnassignRoleRequest) -> Result<Which> {
    if !request.all_scopes {
        return Ok(Which::Just(scope::assigned(request.scope.as_ref())?.map(Value::Object)));
    }
    match request.scope {
        None => Ok(Which::All),
        Some(_) => Err(Error::field("all_scopes", "must not be set together with a scope")),
    }
}

impl From<RoleRow> for Role {
    fn from(row: RoleRow) -> Self {
        Self {
            id: row.role_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            name: row.name,
            level: row.level.into(),
            permissions: row.permissions,
            system: row.is_system,
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}

impl From<AssignmentRow> for RoleAssignment {
    fn from(row: AssignmentRow) -> Self {
        let stored = row.scope.as_ref().map(|scope| &*scope.0);
        let scope = scope::kept(stored, row.tenant_id, row.assignment_id.0);
        let unreadable = scope.is_err();
        Self {
            id: row.assignment_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            user_id: row.user_id.to_string(),
            role_id: row.role_id.to_string(),
            role_name: row.role_name,
            scope: scope.ok().flatten().as_ref().map(json::to_struct),
            expire_time: row.expires_at.map(timestamp),
            create_time: Some(timestamp(row.created_at)),
            unreadable,
        }
    }
}
