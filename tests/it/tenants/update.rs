//! TenantService.UpdateTenant

use serde_json::json;
use tenantry::proto::v1::{Tenant, UpdateTenantRequest, UpdateTenantResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, mask, refused, struct_of, unknown_id};

fn change(tenant: &str) -> UpdateTenantRequest {
    UpdateTenantRequest { tenant: tenant.into(), ..UpdateTenantRequest::default() }
}

fn renamed(tenant: &str, name: &str) -> UpdateTenantRequest {
    UpdateTenantRequest { name: Some(name.into()), ..change(tenant) }
}

async fn update(
    client: &Client,
    request: UpdateTenantRequest,
) -> Result<Response<UpdateTenantResponse>, Status> {
    client.tenants().update_tenant(request).await
}

async fn updated(client: &Client, request: UpdateTenantRequest) -> Tenant {
    update(client, request).await.expect("updated").into_inner().tenant.expect("the tenant")
}

#[tokio::test]
async fn the_mask_selects_the_changed_fields_and_without_one_the_set_fields_change() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let all = UpdateTenantRequest {
        slug: Some("new".into()),
        settings: struct_of(json!({ "a": 1 })),
        ..renamed("", "New")
    };

    let only = UpdateTenantRequest { update_mask: mask(&["name"]), ..all.clone() };
    let tenant = updated(&acme, only).await;
    assert_eq!((tenant.name.as_str(), tenant.slug.as_str()), ("New", "acme"));
    let tenant = updated(&acme, all).await;
    assert_eq!((tenant.slug.as_str(), tenant.settings), ("new", struct_of(json!({ "a": 1 }))));
    let settings = struct_of(json!({ "b": 2 }));
    let tenant = updated(&acme, UpdateTenantRequest { settings, ..change("") }).await;
    assert_eq!(tenant.settings, struct_of(json!({ "b": 2 })), "settings are replaced as a whole");
    app.anonymous().login("new", &acme.email, PASSWORD).await;

    for paths in [["*"], ["state"], ["id"], ["is_platform"], ["slug"], ["settings.a"]] {
        let request = UpdateTenantRequest { update_mask: mask(&paths), ..change("") };
        refused(update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_stale_etag_prevents_the_update() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let etag = updated(&acme, renamed("", "first")).await.etag;
    let guarded = |name: &str| UpdateTenantRequest { etag: etag.clone(), ..renamed("", name) };

    updated(&acme, guarded("second")).await;
    refused(update(&acme, guarded("third")).await, Code::Aborted, "ETAG_MISMATCH");
    let events = app.recorded("tenant_updated").await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].actor_id.map(|id| id.to_string()), Some(acme.user_id));
    assert_eq!(events[0].target_id, Some(events[0].tenant_id));
}

#[tokio::test]
async fn an_update_has_the_same_limits_as_a_creation() {
    let app = TestApp::spawn().await;
    let (acme, _) = (app.tenant("acme").await, app.tenant("other").await);
    let slug = |slug: &str| UpdateTenantRequest { slug: Some(slug.into()), ..change("") };
    let settings = |settings| UpdateTenantRequest { settings: struct_of(settings), ..change("") };

    for taken in ["other", "platform"] {
        refused(update(&acme, slug(taken)).await, Code::AlreadyExists, "SLUG_TAKEN");
    }
    for bad in [
        slug(""),
        slug("A"),
        slug(&unknown_id()),
        renamed("", ""),
        renamed("", "  "),
        renamed("", "a\0"),
        settings(json!({ "self_registration": 1 })),
        settings(json!({ "password_min_length": 7 })),
    ] {
        refused(update(&acme, bad).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn only_platform_staff_change_another_tenant() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let staff = app.platform_admin().await;

    for name in ["other", &other.tenant_id, "platform", "nowhere"] {
        refused(update(&acme, renamed(name, "Mine")).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(updated(&staff, renamed("other", "Ours")).await.id, other.tenant_id);
    let event = &app.recorded("tenant_updated").await[0];
    assert_eq!(event.tenant_id.to_string(), other.tenant_id);
    assert_eq!(event.actor_tenant_id.map(|id| id.to_string()), Some(staff.tenant_id));

    let reader = acme.member("reader", &["tenant:read"]).await;
    let result = update(&reader, renamed("", "Mine")).await;
    refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}
