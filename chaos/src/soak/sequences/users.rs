//! A user from the creation to the deletion.

use tenantry::proto::v1::{
    AssignRoleRequest, ChangePasswordRequest, CheckRequest, DeleteUserRequest, DisableUserRequest,
    EnableUserRequest, GetUserRequest, UnassignRoleRequest, UpdateUserRequest,
};

use super::{Mix, Result};
use crate::{
    soak::setup::{PERMISSIONS, Tenant, create_user},
    workload::{PASSWORD, mask},
};

const NEW_PASSWORD: &str = "another horse battery staple";

impl Mix {
    pub(super) async fn use_user(&self, tenant: &Tenant) -> Result {
        let admin = &tenant.admin;
        let email = format!("{}@{}.test", self.new_name("user"), tenant.slug);
        let user_id = create_user(admin, &email).await?;
        let request = AssignRoleRequest {
            user_id: user_id.clone(),
            role_id: tenant.role_id.clone(),
            ..Default::default()
        };
        admin.call("AssignRole", async || admin.roles().assign_role(request.clone()).await).await?;
        let request = CheckRequest {
            user_id: user_id.clone(),
            permission: PERMISSIONS[0].to_owned(),
            ..Default::default()
        };
        admin.call("Check", async || admin.permissions().check(request.clone()).await).await?;
        let request = GetUserRequest { user_id: user_id.clone() };
        admin.call("GetUser", async || admin.users().get_user(request.clone()).await).await?;
        let (_, user) = self.anonymous.sign_in(&tenant.slug, &email, PASSWORD).await?;
        let request = UpdateUserRequest {
            user_id: user_id.clone(),
            display_name: Some("Ada".to_owned()),
            update_mask: Some(mask("display_name")),
            ..Default::default()
        };
        admin.call("UpdateUser", async || admin.users().update_user(request.clone()).await).await?;
        let request = ChangePasswordRequest {
            current_password: PASSWORD.to_owned(),
            new_password: NEW_PASSWORD.to_owned(),
        };
        user.call("ChangePassword", async || user.auth().change_password(request.clone()).await)
            .await?;
        let request = DisableUserRequest { user_id: user_id.clone() };
        admin
            .call("DisableUser", async || admin.users().disable_user(request.clone()).await)
            .await?;
        let request = EnableUserRequest { user_id: user_id.clone() };
        admin.call("EnableUser", async || admin.users().enable_user(request.clone()).await).await?;
        let request = UnassignRoleRequest {
            user_id: user_id.clone(),
            role_id: tenant.role_id.clone(),
            ..Default::default()
        };
        admin
            .call("UnassignRole", async || admin.roles().unassign_role(request.clone()).await)
            .await?;
        if self.keeps_users {
            return Ok(());
        }
        let request = DeleteUserRequest { user_id, ..Default::default() };
        admin
            .call("DeleteUser", async || admin.users().delete_user(request.clone()).await)
            .await
            .map(drop)
    }
}
