//! The gRPC service `RoleService`.

use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{
    Roles,
    assignments::{AssignmentRow, AssignmentSelector},
    store::RoleRow,
};
use crate::{
    api::update_mask::etag,
    clock::timestamp,
    error::{Error, Result},
    gate::{self, Reach},
    ids::{RoleId, SubjectId},
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
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&write_caller, message).await?))
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
        let write_caller = gate::write_caller(&request)?;
        Ok(Response::new(self.update(&write_caller, request.into_inner()).await?))
    }

    async fn delete_role(
        &self,
        request: Request<DeleteRoleRequest>,
    ) -> Result<Response<DeleteRoleResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let role = RoleId::parse("role_id", &message.role_id)?;
        let consistency_token = self.delete(&write_caller, role, &message.etag).await?;
        Ok(Response::new(DeleteRoleResponse { consistency_token }))
    }

    async fn assign_role(
        &self,
        request: Request<AssignRoleRequest>,
    ) -> Result<Response<AssignRoleResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.assign(&write_caller, message).await?))
    }

    async fn unassign_role(
        &self,
        request: Request<UnassignRoleRequest>,
    ) -> Result<Response<UnassignRoleResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let user = SubjectId::parse("user_id", &message.user_id)?;
        let role = RoleId::parse("role_id", &message.role_id)?;
        let selector = parse_selector(&message)?;
        let consistency_token = self.unassign(&write_caller, user, role, &selector).await?;
        Ok(Response::new(UnassignRoleResponse { consistency_token }))
    }

    async fn list_role_assignments(
        &self,
        request: Request<ListRoleAssignmentsRequest>,
    ) -> Result<Response<ListRoleAssignmentsResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let message = request.into_inner();
        let requested_user = SubjectId::parse_optional("user_id", &message.user_id)?;
        // A caller without the permission may list only its own assignments.
        let (caller, user) = match self_or_permitted.caller_and_reach() {
            (caller, Reach::Tenant) => (caller, requested_user),
            (_, Reach::Own(own_id)) => self_or_permitted
                .caller_and_subject(requested_user.or(Some(own_id)))
                .map(|(caller, user)| (caller, Some(user)))?,
        };
        let (role_assignments, next_page_token) =
            self.list_assignments(caller, user, &message).await?;
        Ok(Response::new(ListRoleAssignmentsResponse { role_assignments, next_page_token }))
    }
}

/// The assignments that a request removes.
fn parse_selector(message: &UnassignRoleRequest) -> Result<AssignmentSelector> {
    if !message.all_scopes {
        return Ok(AssignmentSelector::WithScope(
            scope::parse_assigned(message.scope.as_ref())?.map(Value::Object),
        ));
    }
    match message.scope {
        None => Ok(AssignmentSelector::All),
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
        let stored_scope = row.scope.as_ref().map(|scope| &*scope.0);
        let scope = scope::from_stored(stored_scope, row.tenant_id, row.assignment_id.0);
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
