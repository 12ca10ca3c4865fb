//! TenantService.CreateTenant

use prost_types::value::Kind;
use serde_json::json;
use tenantry::proto::v1::{
    CreateTenantRequest, CreateTenantResponse, GetTenantRequest, ListRolesRequest,
    ListTenantsRequest, Tenant, TenantState, UpdateTenantRequest,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, assert_refused, struct_of};

fn create_request(name: &str, slug: &str) -> CreateTenantRequest {
    CreateTenantRequest { name: name.into(), slug: slug.into(), ..CreateTenantRequest::default() }
}

async fn try_create(
    client: &Client,
    request: CreateTenantRequest,
) -> Result<Response<CreateTenantResponse>, Status> {
    client.tenants().create_tenant(request).await
}

async fn create_tenant(client: &Client, request: CreateTenantRequest) -> Tenant {
    try_create(client, request).await.expect("created").into_inner().tenant.expect("the tenant")
}

#[tokio::test]
async fn a_tenant_is_created_with_its_system_roles_and_recorded() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let settings = struct_of(json!({ "plan": { "seats": 5 }, "password_min_length": 12 }));

    let tenant = create_tenant(
        &platform_admin,
        CreateTenantRequest { settings, ..create_request("Café Zürich", "") },
    )
    .await;
    assert_eq!((tenant.name.as_str(), tenant.slug.as_str()), ("Café Zürich", "cafe-zurich"));
    assert_eq!(tenant.state(), TenantState::Active);
    assert_eq!(
        tenant.settings,
        struct_of(json!({ "plan": { "seats": 5 }, "password_min_length": 12 }))
    );
    let platform_admin_in_tenant = platform_admin.with_metadata("x-tenant-id", &tenant.id);
    let roles = platform_admin_in_tenant
        .roles()
        .list_roles(ListRolesRequest::default())
        .await
        .expect("roles");
    let names: Vec<_> = roles.into_inner().roles.into_iter().map(|role| role.name).collect();
    assert_eq!(names, ["org_admin", "manager", "member", "viewer"]);

    let events = app.audit_events("tenant_created").await;
    let event = events.iter().find(|event| event.tenant_id.to_string() == tenant.id);
    let event = event.expect("an event of the new tenant");
    assert_eq!(event.target_id, Some(event.tenant_id));
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(platform_admin.user_id));
    assert_eq!(event.actor_tenant_id.map(|id| id.to_string()), Some(platform_admin.tenant_id));
}

#[tokio::test]
async fn a_tenants_administrator_cannot_create_tenants() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.platform_admin().await;

    let result = try_create(&acme, create_request("New", "")).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    let result = try_create(&app.anonymous(), create_request("New", "")).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_MISSING");
}

#[tokio::test]
async fn taken_slugs_and_invalid_names_or_slugs_are_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    for request in
        [create_request("Acme", ""), create_request("New", "acme"), create_request("Platform", "")]
    {
        assert_refused(
            try_create(&platform_admin, request).await,
            Code::AlreadyExists,
            "SLUG_TAKEN",
        );
    }
    // A name has at most 200 characters, and a slug at most 63.
    for request in [
        create_request("", "new"),
        create_request(" ", "new"),
        create_request("New\0", "new"),
        create_request(&"n".repeat(201), "new"),
        create_request("New", "New"),
        create_request("New", "a_b"),
        create_request("New", "a b"),
        create_request("New", &"n".repeat(64)),
        create_request("New", &acme.tenant_id),
        create_request(&acme.tenant_id, ""),
    ] {
        assert_refused(
            try_create(&platform_admin, request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
    }
}

#[tokio::test]
async fn invalid_settings_are_refused() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;

    // The minimum length of passwords is from 8 to 64, and settings have at most 64 KiB.
    for invalid_settings in [
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
        let settings = struct_of(invalid_settings.clone());
        let request = CreateTenantRequest { settings, ..create_request("New", "") };
        let status =
            try_create(&platform_admin, request).await.expect_err(&invalid_settings.to_string());
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let valid_settings = json!({ "x": [1, null, { "y": "日本" }], "self_registration": false });
    let request = CreateTenantRequest {
        settings: struct_of(valid_settings.clone()),
        ..create_request("New", "")
    };
    assert_eq!(create_tenant(&platform_admin, request).await.settings, struct_of(valid_settings));
}

/// N01: a number that cannot be returned exactly is refused.
/// N02: settings that are nested more than 20 deep are refused.
#[tokio::test]
async fn settings_are_returned_exactly_or_refused() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let object = |value| prost_types::Struct { fields: [("x".to_owned(), value)].into() };
    let value = |kind| prost_types::Value { kind: Some(kind) };
    let number = |number| object(value(Kind::NumberValue(number)));
    let nested =
        |depth| (1..depth).fold(number(0.1), |inner, _| object(value(Kind::StructValue(inner))));
    let valid_settings =
        [nested(20), number(0.418_172_151_370_759_47), number(5e-324), number(-1.5)];
    for (n, settings) in valid_settings.into_iter().enumerate() {
        let settings = Some(settings);
        let request = CreateTenantRequest {
            settings: settings.clone(),
            request_id: format!("n{n}"),
            ..create_request("New", &format!("new-{n}"))
        };
        let tenant = create_tenant(&platform_admin, request.clone()).await;
        assert_eq!(tenant.settings, settings);
        assert_eq!(create_tenant(&platform_admin, request).await, tenant, "a retry");
        let request = GetTenantRequest { tenant: tenant.id.clone() };
        let reply = platform_admin.tenants().get_tenant(request).await.expect("found").into_inner();
        assert_eq!(reply.tenant, Some(tenant));
    }
    let list = platform_admin.tenants().list_tenants(ListTenantsRequest::default()).await;
    assert_eq!(list.expect("a page").into_inner().tenants.len(), 5, "the platform and four others");
    // Numbers with a magnitude of 2^53 or more, negative zero, NaN and infinity are refused.
    // Settings are nested at most 20 deep.
    let invalid_numbers =
        [9_007_199_254_740_992.0, -1e300, f64::MAX, f64::NAN, f64::INFINITY, -0.0];
    for settings in invalid_numbers.into_iter().map(number).chain([nested(21), nested(30)]) {
        let settings = Some(settings);
        let request =
            CreateTenantRequest { settings: settings.clone(), ..create_request("No", "no") };
        assert_refused(
            try_create(&platform_admin, request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let update_request = UpdateTenantRequest { settings, ..UpdateTenantRequest::default() };
        let result = platform_admin.tenants().update_tenant(update_request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_request_id_makes_a_retry_safe() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let request = || CreateTenantRequest { request_id: "once".into(), ..create_request("New", "") };

    let calls = (0..20).map(|_| create_tenant(&platform_admin, request()));
    let tenants = futures::future::join_all(calls).await;
    assert!(tenants.iter().all(|tenant| *tenant == tenants[0]));
    let changed_request = CreateTenantRequest { name: "Other".into(), ..request() };
    assert_refused(
        try_create(&platform_admin, changed_request).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
}
