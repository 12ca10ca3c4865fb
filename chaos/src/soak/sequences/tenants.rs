//! A tenant from the creation to the deletion.

use tenantry::proto::v1::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest,
    ReactivateTenantRequest, RegisterRequest, SuspendTenantRequest, UpdateTenantRequest,
};

use super::{Mix, Result};
use crate::{
    soak::setup::create_user,
    workload::{PASSWORD, mask},
};

/// Users whose rows the purge deletes with their tenant.
const USERS: usize = 3;

impl Mix {
    pub(super) async fn use_tenant(&self) -> Result {
        self.use_empty_tenant().await?;
        self.use_tenant_with_users().await
    }

    async fn use_empty_tenant(&self) -> Result {
        let (platform, slug) = (&self.platform, self.new_name("empty"));
        let request =
            CreateTenantRequest { name: slug.clone(), slug: slug.clone(), ..Default::default() };
        platform
            .call("CreateTenant", async || platform.tenants().create_tenant(request.clone()).await)
            .await?;
        let request = GetTenantRequest { tenant: slug.clone() };
        platform
            .call("GetTenant", async || platform.tenants().get_tenant(request.clone()).await)
            .await?;
        let request = ListTenantsRequest { page_size: 20, ..Default::default() };
        platform
            .call("ListTenants", async || platform.tenants().list_tenants(request.clone()).await)
            .await?;
        let request = UpdateTenantRequest {
            tenant: slug.clone(),
            name: Some("Another name".to_owned()),
            update_mask: Some(mask("name")),
            ..Default::default()
        };
        platform
            .call("UpdateTenant", async || platform.tenants().update_tenant(request.clone()).await)
            .await?;
        let request = SuspendTenantRequest { tenant: slug.clone() };
        platform
            .call("SuspendTenant", async || {
                platform.tenants().suspend_tenant(request.clone()).await
            })
            .await?;
        let request = ReactivateTenantRequest { tenant: slug.clone() };
        platform
            .call("ReactivateTenant", async || {
                platform.tenants().reactivate_tenant(request.clone()).await
            })
            .await?;
        self.delete_tenant(slug).await
    }

    async fn use_tenant_with_users(&self) -> Result {
        let (anonymous, slug) = (&self.anonymous, self.new_name("tenant"));
        let email = format!("admin@{slug}.test");
        let request = RegisterRequest {
            email: email.clone(),
            password: PASSWORD.to_owned(),
            organization_name: slug.clone(),
            organization_slug: slug.clone(),
            ..Default::default()
        };
        anonymous
            .call("Register", async || anonymous.auth().register(request.clone()).await)
            .await?;
        let (_, admin) = anonymous.sign_in(&slug, &email, PASSWORD).await?;
        for number in 0..USERS {
            create_user(&admin, &format!("user-{number}@{slug}.test")).await?;
        }
        self.delete_tenant(slug).await
    }

    async fn delete_tenant(&self, slug: String) -> Result {
        let platform = &self.platform;
        let request = DeleteTenantRequest { tenant: slug, ..Default::default() };
        platform
            .call("DeleteTenant", async || platform.tenants().delete_tenant(request.clone()).await)
            .await
            .map(drop)
    }
}
