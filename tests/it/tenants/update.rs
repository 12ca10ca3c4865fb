//! TenantService.UpdateTenant

use serde_json::json;
use tenantry::proto::v1::{Tenant, UpdateTenantRequest, UpdateTenantResponse};
use tonic::{Code, Response, Status};

use super::OWN_TENANT;
use crate::harness::{Client, PASSWORD, TestApp, assert_refused, mask, struct_of, unknown_id};

fn update_request(tenant: &str) -> UpdateTenantRequest {
    UpdateTenantRequest { tenant: tenant.into(), ..UpdateTenantRequest::default() }
}

fn rename_request(tenant: &str, name: &str) -> UpdateTenantRequest {
    UpdateTenantRequest { name: Some(name.into()), ..update_request(tenant) }
}

async fn try_update(
    client: &Client,
    request: UpdateTenantRequest,
) -> Result<Response<UpdateTenantResponse>, Status> {
    client.tenants().update_tenant(request).await
}

async fn update_tenant(client: &Client, request: UpdateTenantRequest) -> Tenant {
    try_update(client, request).await.expect("updated").into_inner().tenant.expect("the tenant")
}

#[tokio::test]
async fn an_update_with_a_mask_changes_its_fields_and_without_a_mask_all_fields_that_are_set() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let full_request = UpdateTenantRequest {
        slug: Some("new".into()),
        settings: struct_of(json!({ "a": 1 })),
        ..rename_request(OWN_TENANT, "New")
    };

    let name_request = UpdateTenantRequest { update_mask: mask(&["name"]), ..full_request.clone() };
    let tenant = update_tenant(&acme, name_request).await;
    assert_eq!((tenant.name.as_str(), tenant.slug.as_str()), ("New", "acme"));
    let tenant = update_tenant(&acme, full_request).await;
    assert_eq!((tenant.slug.as_str(), tenant.settings), ("new", struct_of(json!({ "a": 1 }))));
    let settings = struct_of(json!({ "b": 2 }));
    let tenant =
        update_tenant(&acme, UpdateTenantRequest { settings, ..update_request(OWN_TENANT) }).await;
    assert_eq!(tenant.settings, struct_of(json!({ "b": 2 })), "settings are replaced as a whole");
    app.anonymous().login("new", &acme.email, PASSWORD).await;

    // `slug` is refused because it is in the mask but not set in the request.
    for paths in [["*"], ["state"], ["id"], ["is_platform"], ["slug"], ["settings.a"]] {
        let request =
            UpdateTenantRequest { update_mask: mask(&paths), ..update_request(OWN_TENANT) };
        assert_refused(try_update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_stale_etag_prevents_the_update() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let etag = update_tenant(&acme, rename_request(OWN_TENANT, "first")).await.etag;
    let request_with_etag =
        |name: &str| UpdateTenantRequest { etag: etag.clone(), ..rename_request(OWN_TENANT, name) };

    update_tenant(&acme, request_with_etag("second")).await;
    assert_refused(
        try_update(&acme, request_with_etag("third")).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    let events = app.audit_events("tenant_updated").await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].actor_id.map(|id| id.to_string()), Some(acme.user_id));
    assert_eq!(events[0].target_id, Some(events[0].tenant_id));
}

#[tokio::test]
async fn an_update_is_validated_like_a_creation() {
    let app = TestApp::spawn().await;
    let (acme, _) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let slug_request =
        |slug: &str| UpdateTenantRequest { slug: Some(slug.into()), ..update_request(OWN_TENANT) };
    let settings_request = |settings| UpdateTenantRequest {
        settings: struct_of(settings),
        ..update_request(OWN_TENANT)
    };

    let slug_like_a_uuid = unknown_id();
    for taken_slug in ["other", "platform"] {
        assert_refused(
            try_update(&acme, slug_request(taken_slug)).await,
            Code::AlreadyExists,
            "SLUG_TAKEN",
        );
    }
    for request in [
        slug_request(""),
        slug_request("A"),
        slug_request(&slug_like_a_uuid),
        rename_request(OWN_TENANT, ""),
        rename_request(OWN_TENANT, "  "),
        rename_request(OWN_TENANT, "a\0"),
        settings_request(json!({ "self_registration": 1 })),
        settings_request(json!({ "password_min_length": 7 })),
    ] {
        assert_refused(try_update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn only_platform_staff_change_another_tenant() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let platform_admin = app.platform_admin().await;

    for tenant in ["other", &other.tenant_id, "platform", "nowhere"] {
        assert_refused(
            try_update(&acme, rename_request(tenant, "Mine")).await,
            Code::NotFound,
            "NOT_FOUND",
        );
    }
    assert_eq!(
        update_tenant(&platform_admin, rename_request("other", "Ours")).await.id,
        other.tenant_id
    );
    let event = &app.audit_events("tenant_updated").await[0];
    assert_eq!(event.tenant_id.to_string(), other.tenant_id);
    assert_eq!(event.actor_tenant_id.map(|id| id.to_string()), Some(platform_admin.tenant_id));

    let reader = acme.create_member("reader", &["tenant:read"]).await;
    let result = try_update(&reader, rename_request(OWN_TENANT, "Mine")).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}
