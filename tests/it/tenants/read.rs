//! TenantService.GetTenant

use tenantry::proto::v1::{GetTenantRequest, GetTenantResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused, unknown_id};

async fn get(client: &Client, tenant: &str) -> Result<Response<GetTenantResponse>, Status> {
    client.tenants().get_tenant(GetTenantRequest { tenant: tenant.into() }).await
}

async fn id_of(client: &Client, tenant: &str) -> String {
    get(client, tenant).await.expect("found").into_inner().tenant.expect("the tenant").id
}

#[tokio::test]
async fn a_callers_own_tenant_is_found_by_id_slug_or_empty_name() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let reader = acme.member("reader", &["tenant:read"]).await;

    for client in [&acme, &reader] {
        for name in ["", "acme", &acme.tenant_id, &acme.tenant_id.to_uppercase()] {
            assert_eq!(id_of(client, name).await, acme.tenant_id);
        }
    }
    let member_without_permission = acme.member("nobody", &[]).await;
    refused(
        get(&member_without_permission, "").await,
        Code::PermissionDenied,
        "PERMISSION_MISSING",
    );
}

#[tokio::test]
async fn another_tenant_looks_like_an_unknown_one() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    app.platform_admin().await;

    let mut seen = Vec::new();
    for name in ["other", &other.tenant_id, "platform", "nowhere", &unknown_id()] {
        let status = refused(get(&acme, name).await, Code::NotFound, "NOT_FOUND");
        seen.push((status.message().to_owned(), status.details().to_vec()));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn platform_staff_may_read_any_tenant_and_are_recorded() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await;

    assert_eq!(id_of(&staff, "").await, staff.tenant_id);
    assert!(app.recorded("acted_across_tenants").await.is_empty());
    assert_eq!(id_of(&staff, "acme").await, acme.tenant_id);
    assert_eq!(id_of(&staff.with("x-tenant-id", "acme"), "").await, acme.tenant_id);
    let events = app.recorded("acted_across_tenants").await;
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(event.tenant_id.to_string(), acme.tenant_id);
        assert_eq!(event.actor_id.map(|id| id.to_string()), Some(staff.user_id.clone()));
    }
    refused(get(&staff, "nowhere").await, Code::NotFound, "NOT_FOUND");
}
