//! The tenants that exist during the whole run.

use anyhow::{Context, anyhow};
use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateUserRequest, RegisterRequest, RoleLevel,
    UpdateTenantRequest, create_user_request::Credential,
};

use super::api::{Api, CallFailed};
use crate::workload::{PASSWORD, mask};

/// Number of users of each tenant that exist during the whole run.
const USERS: usize = 10;

/// The permissions of the role that all users have.
pub const PERMISSIONS: [&str; 2] = ["doc:read", "doc:write"];

pub struct Tenant {
    pub slug: String,
    pub admin: Api,
    pub role_id: String,
    pub users: Vec<User>,
}

pub struct User {
    pub id: String,
    pub email: String,
}

/// Creates a tenant with an administrator, a role and users.
///
/// # Errors
/// Returns an error when a call fails.
pub async fn create_tenant(anonymous: &Api, slug: &str) -> anyhow::Result<Tenant> {
    create(anonymous, slug).await.map_err(|CallFailed| anyhow!("a call of the setup failed"))?
}

/// The outer error is a failed call. The inner error is a response without an id.
async fn create(anonymous: &Api, slug: &str) -> Result<anyhow::Result<Tenant>, CallFailed> {
    let email = format!("admin@{slug}.test");
    let request = RegisterRequest {
        email: email.clone(),
        password: PASSWORD.to_owned(),
        organization_name: slug.to_owned(),
        organization_slug: slug.to_owned(),
        ..Default::default()
    };
    anonymous.call("Register", async || anonymous.auth().register(request.clone()).await).await?;
    let (_, admin) = anonymous.sign_in(slug, &email, PASSWORD).await?;
    allow_registration(&admin).await?;
    let request = CreateRoleRequest {
        name: "reader".to_owned(),
        level: RoleLevel::Member.into(),
        permissions: PERMISSIONS.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let created =
        admin.call("CreateRole", async || admin.roles().create_role(request.clone()).await).await?;
    let role_id = created.role.unwrap_or_default().id;
    let mut users = Vec::new();
    for number in 0..USERS {
        let email = format!("permanent-{number}@{slug}.test");
        let id = create_user(&admin, &email).await?;
        let request = AssignRoleRequest {
            user_id: id.clone(),
            role_id: role_id.clone(),
            ..Default::default()
        };
        admin.call("AssignRole", async || admin.roles().assign_role(request.clone()).await).await?;
        users.push(User { id, email });
    }
    let slug = slug.to_owned();
    let is_complete = !role_id.is_empty() && users.iter().all(|user| !user.id.is_empty());
    Ok(is_complete.then_some(Tenant { slug, admin, role_id, users }).context("an id is missing"))
}

/// Lets users register themselves in the tenant.
async fn allow_registration(admin: &Api) -> Result<(), CallFailed> {
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) };
    let fields = [("self_registration".to_owned(), value)].into();
    let request = UpdateTenantRequest {
        settings: Some(prost_types::Struct { fields }),
        update_mask: Some(mask("settings")),
        ..Default::default()
    };
    admin
        .call("UpdateTenant", async || admin.tenants().update_tenant(request.clone()).await)
        .await
        .map(drop)
}

/// Creates a user, and returns the id.
pub async fn create_user(admin: &Api, email: &str) -> Result<String, CallFailed> {
    let request = CreateUserRequest {
        email: email.to_owned(),
        credential: Some(Credential::Password(PASSWORD.to_owned())),
        ..Default::default()
    };
    let created =
        admin.call("CreateUser", async || admin.users().create_user(request.clone()).await).await?;
    Ok(created.user.unwrap_or_default().id)
}
