//! TenantService.GetTenant

use tenantry::proto::v1::{GetTenantRequest, GetTenantResponse};
use tonic::{Code, Response, Status};

use super::OWN_TENANT;
use crate::harness::{Client, TestApp, assert_refused, unknown_id};

async fn get(client: &Client, tenant: &str) -> Result<Response<GetTenantResponse>, Status> {
    client.tenants().get_tenant(GetTenantRequest { tenant: tenant.into() }).await
}

async fn get_id(client: &Client, tenant: &str) -> String {
    get(client, tenant).await.expect("found").into_inner().tenant.expect("the tenant").id
}

#[tokio::test]
async fn a_callers_own_tenant_is_found_by_id_slug_or_empty_name() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let reader = acme.create_member("reader", &["tenant:read"]).await;

    for client in [&acme, &reader] {
        for tenant in [OWN_TENANT, "acme", &acme.tenant_id, &acme.tenant_id.to_uppercase()] {
            assert_eq!(get_id(client, tenant).await, acme.tenant_id);
        }
    }
    let member_without_permission = acme.create_member("nobody", &[]).await;
    assert_refused(
        get(&member_without_permission, OWN_TENANT).await,
        Code::PermissionDenied,
        "PERMISSION_MISSING",
    );
}

#[tokio::test]
async fn another_tenant_looks_like_an_unknown_one() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    app.platform_admin().await;

    let mut refusals = Vec::new();
    for tenant in ["other", &other.tenant_id, "platform", "nowhere", &unknown_id()] {
        let status = assert_refused(get(&acme, tenant).await, Code::NotFound, "NOT_FOUND");
        refusals.push((status.message().to_owned(), status.details().to_vec()));
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1);
}

#[tokio::test]
async fn reads_of_other_tenants_by_platform_staff_are_recorded() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    assert_eq!(get_id(&platform_admin, OWN_TENANT).await, platform_admin.tenant_id);
    assert!(app.audit_events("acted_across_tenants").await.is_empty());
    assert_eq!(get_id(&platform_admin, "acme").await, acme.tenant_id);
    assert_eq!(
        get_id(&platform_admin.with_metadata("x-tenant-id", "acme"), OWN_TENANT).await,
        acme.tenant_id
    );
    let events = app.audit_events("acted_across_tenants").await;
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(event.tenant_id.to_string(), acme.tenant_id);
        assert_eq!(event.actor_id.map(|id| id.to_string()), Some(platform_admin.user_id.clone()));
    }
    assert_refused(get(&platform_admin, "nowhere").await, Code::NotFound, "NOT_FOUND");
}
