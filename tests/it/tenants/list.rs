//! TenantService.ListTenants

use tenantry::proto::v1::{ListTenantsRequest, SuspendTenantRequest};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused};

async fn list_pages_of_slugs(client: &Client, filter: &str, page_size: i32) -> Vec<Vec<String>> {
    let mut request =
        ListTenantsRequest { filter: filter.into(), page_size, ..ListTenantsRequest::default() };
    let mut pages = Vec::new();
    loop {
        let reply = client.tenants().list_tenants(request.clone()).await.expect("tenants");
        let reply = reply.into_inner();
        pages.push(reply.tenants.into_iter().map(|tenant| tenant.slug).collect());
        request.page_token = reply.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_contain_each_tenant_once_oldest_first() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    for slug in ["a", "b", "c"] {
        app.create_tenant(slug).await;
    }

    let platform_admin_in_a = platform_admin.with_metadata("x-tenant-id", "a");
    for (size, page_count) in [(0, 1), (1, 4), (3, 2), (4, 1), (i32::MAX, 1)] {
        for client in [&platform_admin, &platform_admin_in_a] {
            let pages = list_pages_of_slugs(client, "", size).await;
            assert_eq!(pages.len(), page_count, "pages of {size}");
            assert_eq!(pages.concat(), ["platform", "a", "b", "c"]);
        }
    }
}

#[tokio::test]
async fn a_filter_selects_tenants_by_state_slug_and_name() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    for slug in ["acme-1", "acme-2", "other"] {
        app.create_tenant(slug).await;
    }
    let request = SuspendTenantRequest { tenant: "acme-2".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");

    for (filter, expected) in [
        ("slug = acme*", vec!["acme-1", "acme-2"]),
        ("slug = acme*  AND state = ACTIVE", vec!["acme-1"]),
        ("state = TENANT_STATE_SUSPENDED", vec!["acme-2"]),
        ("name = \"The other*\"", vec!["other"]),
        ("name:OTHER", vec!["other"]),
        ("slug:cme AND state = ACTIVE", vec!["acme-1"]),
        ("slug = \"acme_1\"", vec![]),
        ("slug = \"%\"", vec![]),
    ] {
        assert_eq!(
            list_pages_of_slugs(&platform_admin, filter, 0).await.concat(),
            expected,
            "{filter}"
        );
    }
    for invalid_filter in ["state = GONE", "settings = x", "slug"] {
        let request =
            ListTenantsRequest { filter: invalid_filter.into(), ..ListTenantsRequest::default() };
        let result = platform_admin.tenants().list_tenants(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_tenants_administrator_cannot_list_tenants() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let result = acme.tenants().list_tenants(ListTenantsRequest::default()).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}
