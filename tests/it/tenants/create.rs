//! TenantService.CreateTenant

use prost_types::value::Kind;
use serde_json::json;
use tenantry::proto::v1::{
    CreateTenantRequest, CreateTenantResponse, GetTenantRequest, ListRolesRequest,
    ListTenantsRequest, Tenant, TenantState, UpdateTenantRequest,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused, struct_of};

fn tenant(name: &str, slug: &str) -> CreateTenantRequest {
    CreateTenantRequest { name: name.into(), slug: slug.into(), ..CreateTenantRequest::default() }
}

async fn create(
    client: &Client,
    request: CreateTenantRequest,
) -> Result<Response<CreateTenantResponse>, Status> {
    client.tenants().create_tenant(request).await
}

async fn created(client: &Client, request: CreateTenantRequest) -> Tenant {
    create(client, request).await.expect("made").into_inner().tenant.expect("the tenant")
}

#[tokio::test]
async fn a_tenant_is_created_with_its_system_roles_and_recorded() {
    let app = TestApp::spawn().await;
    let staff = app.platform_admin().await;
    let settings = struct_of(json!({ "plan": { "seats": 5 }, "password_min_length": 12 }));

    let made = created(&staff, CreateTenantRequest { settings, ..tenant("Café Zürich", "") }).await;
    assert_eq!((made.name.as_str(), made.slug.as_str()), ("Café Zürich", "cafe-zurich"));
    assert_eq!(made.state(), TenantState::Active);
    assert_eq!(
        made.settings,
        struct_of(json!({ "plan": { "seats": 5 }, "password_min_length": 12 }))
    );
    let staff_in_tenant = staff.with("x-tenant-id", &made.id);
    let roles =
        staff_in_tenant.roles().list_roles(ListRolesRequest::default()).await.expect("roles");
    let names: Vec<_> = roles.into_inner().roles.into_iter().map(|role| role.name).collect();
    assert_eq!(names, ["org_admin", "manager", "member", "viewer"]);

    let events = app.recorded("tenant_created").await;
    let event = events.iter().find(|event| event.tenant_id.to_string() == made.id);
    let event = event.expect("an event of the new tenant");
    assert_eq!(event.target_id, Some(event.tenant_id));
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(staff.user_id));
    assert_eq!(event.actor_tenant_id.map(|id| id.to_string()), Some(staff.tenant_id));
}

#[tokio::test]
async fn a_tenants_administrator_cannot_create_tenants() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    app.platform_admin().await;

    let result = create(&acme, tenant("New", "")).await;
    refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    let result = create(&app.anonymous(), tenant("New", "")).await;
    refused(result, Code::Unauthenticated, "TOKEN_MISSING");
}

#[tokio::test]
async fn slugs_are_unique_and_must_not_look_like_an_id() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await;

    for taken in [tenant("Acme", ""), tenant("New", "acme"), tenant("Platform", "")] {
        refused(create(&staff, taken).await, Code::AlreadyExists, "SLUG_TAKEN");
    }
    for bad in [
        tenant("", "new"),
        tenant(" ", "new"),
        tenant("New\0", "new"),
        tenant(&"n".repeat(201), "new"),
        tenant("New", "New"),
        tenant("New", "a_b"),
        tenant("New", "a b"),
        tenant("New", &"n".repeat(64)),
        tenant("New", &acme.tenant_id),
        tenant(&acme.tenant_id, ""),
    ] {
        refused(create(&staff, bad).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn known_settings_must_be_valid() {
    let app = TestApp::spawn().await;
    let staff = app.platform_admin().await;

    for bad in [
        json!({ "self_registration": "yes" }),
        json!({ "self_registration": null }),
        json!({ "password_min_length": 7 }),
        json!({ "password_min_length": 65 }),
        json!({ "password_min_length": "12" }),
        json!({ "password_min_length": 12.5 }),
        json!({ "password_min_length": -1 }),
        json!({ "x": "x".repeat(70_000) }),
        json!({ "x": "nul \0" }),
        json!({ "x\0": 1 }),
    ] {
        let settings = struct_of(bad.clone());
        let request = CreateTenantRequest { settings, ..tenant("New", "") };
        let status = create(&staff, request).await.expect_err(&bad.to_string());
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let any = json!({ "x": [1, null, { "y": "日本" }], "self_registration": false });
    let request = CreateTenantRequest { settings: struct_of(any.clone()), ..tenant("New", "") };
    assert_eq!(created(&staff, request).await.settings, struct_of(any));
}

/// N01, N02: the server returns a stored value exactly, or refuses the value.
#[tokio::test]
async fn settings_are_returned_exactly_or_refused() {
    let app = TestApp::spawn().await;
    let staff = app.platform_admin().await;
    let object = |value| prost_types::Struct { fields: [("x".to_owned(), value)].into() };
    let value = |kind| prost_types::Value { kind: Some(kind) };
    let number = |number| object(value(Kind::NumberValue(number)));
    let nested =
        |depth| (1..depth).fold(number(0.1), |inner, _| object(value(Kind::StructValue(inner))));
    let fine = [nested(20), number(0.418_172_151_370_759_47), number(5e-324), number(-1.5)];
    for (at, settings) in fine.into_iter().enumerate() {
        let settings = Some(settings);
        let request = CreateTenantRequest {
            settings: settings.clone(),
            request_id: format!("n{at}"),
            ..tenant("New", &format!("new-{at}"))
        };
        let made = created(&staff, request.clone()).await;
        assert_eq!(made.settings, settings);
        assert_eq!(created(&staff, request).await, made, "a retry");
        let request = GetTenantRequest { tenant: made.id.clone() };
        let got = staff.tenants().get_tenant(request).await.expect("found").into_inner();
        assert_eq!(got.tenant, Some(made));
    }
    let list = staff.tenants().list_tenants(ListTenantsRequest::default()).await;
    assert_eq!(list.expect("a page").into_inner().tenants.len(), 5);
    let wrong = [9_007_199_254_740_992.0, -1e300, f64::MAX, f64::NAN, f64::INFINITY, -0.0];
    for settings in wrong.into_iter().map(number).chain([nested(21), nested(30)]) {
        let settings = Some(settings);
        let create_it = CreateTenantRequest { settings: settings.clone(), ..tenant("No", "no") };
        refused(create(&staff, create_it).await, Code::InvalidArgument, "INVALID_FIELDS");
        let change = UpdateTenantRequest { settings, ..UpdateTenantRequest::default() };
        let changed = staff.tenants().update_tenant(change).await;
        refused(changed, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_request_id_makes_a_retry_safe() {
    let app = TestApp::spawn().await;
    let staff = app.platform_admin().await;
    let once = || CreateTenantRequest { request_id: "once".into(), ..tenant("New", "") };

    let calls = (0..20).map(|_| created(&staff, once()));
    let tenants = futures::future::join_all(calls).await;
    assert!(tenants.iter().all(|tenant| *tenant == tenants[0]));
    let other = CreateTenantRequest { name: "Other".into(), ..once() };
    refused(create(&staff, other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}
