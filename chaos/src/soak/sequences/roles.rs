//! A role from the creation to the deletion.

use fastrand::Rng;
use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, DeleteRoleRequest, GetRoleRequest,
    ListRoleAssignmentsRequest, ListRolesRequest, RoleLevel, UnassignRoleRequest,
    UpdateRoleRequest,
};

use super::{Mix, Result};
use crate::{
    soak::setup::{PERMISSIONS, Tenant},
    workload::mask,
};

impl Mix {
    pub(super) async fn use_role(&self, tenant: &Tenant, rng: &mut Rng) -> Result {
        let admin = &tenant.admin;
        let user_id = tenant.users[rng.usize(..tenant.users.len())].id.clone();
        let request = CreateRoleRequest {
            name: self.new_name("role"),
            level: RoleLevel::Member.into(),
            permissions: vec![PERMISSIONS[0].to_owned()],
            request_id: self.new_name("request"),
            ..Default::default()
        };
        let created = admin
            .call("CreateRole", async || admin.roles().create_role(request.clone()).await)
            .await?;
        let role_id = created.role.unwrap_or_default().id;
        let request = GetRoleRequest { role_id: role_id.clone() };
        admin.call("GetRole", async || admin.roles().get_role(request.clone()).await).await?;
        let request = UpdateRoleRequest {
            role_id: role_id.clone(),
            permissions: vec![PERMISSIONS[1].to_owned()],
            update_mask: Some(mask("permissions")),
            ..Default::default()
        };
        admin.call("UpdateRole", async || admin.roles().update_role(request.clone()).await).await?;
        let request = AssignRoleRequest {
            user_id: user_id.clone(),
            role_id: role_id.clone(),
            request_id: self.new_name("request"),
            ..Default::default()
        };
        admin.call("AssignRole", async || admin.roles().assign_role(request.clone()).await).await?;
        let request = ListRoleAssignmentsRequest { role_id: role_id.clone(), ..Default::default() };
        admin
            .call("ListRoleAssignments", async || {
                admin.roles().list_role_assignments(request.clone()).await
            })
            .await?;
        admin
            .call("ListRoles", async || admin.roles().list_roles(ListRolesRequest::default()).await)
            .await?;
        let request =
            UnassignRoleRequest { user_id, role_id: role_id.clone(), ..Default::default() };
        admin
            .call("UnassignRole", async || admin.roles().unassign_role(request.clone()).await)
            .await?;
        let request = DeleteRoleRequest { role_id, ..Default::default() };
        admin
            .call("DeleteRole", async || admin.roles().delete_role(request.clone()).await)
            .await
            .map(drop)
    }
}
