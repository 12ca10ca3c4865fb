//! RoleService.UpdateRole

use tenantry::proto::v1::{GetRoleRequest, Role, RoleLevel, UpdateRoleRequest, UpdateRoleResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, assert_refused, mask, unknown_id};

fn update_request(role_id: &str) -> UpdateRoleRequest {
    UpdateRoleRequest { role_id: role_id.into(), ..UpdateRoleRequest::default() }
}

async fn try_update(
    client: &Client,
    request: UpdateRoleRequest,
) -> Result<Response<UpdateRoleResponse>, Status> {
    client.roles().update_role(request).await
}

async fn update_role(client: &Client, request: UpdateRoleRequest) -> Role {
    try_update(client, request).await.expect("updated").into_inner().role.expect("the role")
}

async fn get_role(client: &Client, role_id: &str) -> Role {
    let request = GetRoleRequest { role_id: role_id.into() };
    client.roles().get_role(request).await.expect("found").into_inner().role.expect("the role")
}

#[tokio::test]
async fn an_update_with_a_mask_changes_its_fields_and_without_a_mask_all_fields_that_are_set() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let id = acme.create_role("ops", RoleLevel::Member, &["a:b"]).await;
    let full_request = UpdateRoleRequest {
        name: Some("dev".into()),
        level: Some(RoleLevel::Manager.into()),
        permissions: vec!["c:d".into()],
        ..update_request(&id)
    };

    let name_request = UpdateRoleRequest { update_mask: mask(&["name"]), ..full_request.clone() };
    let role = update_role(&acme, name_request).await;
    assert_eq!((role.name.as_str(), role.level()), ("dev", RoleLevel::Member));
    assert_eq!(role.permissions, ["a:b"]);

    let permissions_request =
        UpdateRoleRequest { permissions: vec!["e:f".into()], ..update_request(&id) };
    assert_eq!(update_role(&acme, permissions_request).await.permissions, ["e:f"]);
    let role = update_role(&acme, full_request).await;
    assert_eq!(
        (role.level(), role.permissions.as_slice()),
        (RoleLevel::Manager, &["c:d".into()][..])
    );

    let empty_request =
        UpdateRoleRequest { update_mask: mask(&["permissions"]), ..update_request(&id) };
    assert!(update_role(&acme, empty_request).await.permissions.is_empty());
    assert_eq!(get_role(&acme, &id).await.name, "dev");
}

#[tokio::test]
async fn a_mask_may_contain_only_known_fields_that_are_set() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let id = acme.create_role("ops", RoleLevel::Member, &[]).await;

    // `name` and `level` are refused because they are in the mask but not set in the request.
    for paths in [["*"], ["system"], ["id"], ["tenant_id"], ["name"], ["level"], ["permissions.0"]]
    {
        let request = UpdateRoleRequest { update_mask: mask(&paths), ..update_request(&id) };
        assert_refused(try_update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_stale_etag_prevents_the_update() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let id = acme.create_role("ops", RoleLevel::Member, &[]).await;
    let old_role = get_role(&acme, &id).await;
    let rename_request = |name: &str, etag: &str| UpdateRoleRequest {
        name: Some(name.into()),
        etag: etag.into(),
        ..update_request(&id)
    };

    let renamed_role = update_role(&acme, rename_request("first", &old_role.etag)).await;
    assert_ne!(renamed_role.etag, old_role.etag);
    assert!(
        renamed_role.update_time != old_role.update_time
            && renamed_role.create_time == old_role.create_time
    );
    let result = try_update(&acme, rename_request("second", &old_role.etag)).await;
    assert_refused(result, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(get_role(&acme, &id).await.name, "first");
    update_role(&acme, rename_request("second", &renamed_role.etag)).await;
}

/// F04: the caller must hold each permission that it adds or removes.
#[tokio::test]
async fn a_caller_cannot_raise_or_change_a_role_above_its_own_rights() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:read", "role:update", "doc:read"]).await;
    let own_role = get_role(&acme, &acme.role_id("ada").await).await;
    let stronger_role = acme.create_role("strong", RoleLevel::Member, &["doc:write"]).await;
    let higher_role = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let with_permission = |id: &str, permission: &str| UpdateRoleRequest {
        permissions: vec![permission.into()],
        ..update_request(id)
    };
    let with_level = |id: &str, level: RoleLevel| UpdateRoleRequest {
        level: Some(level.into()),
        ..update_request(id)
    };

    for (request, reason) in [
        (with_permission(&own_role.id, "doc:write"), "GRANT_NOT_HELD"),
        (with_permission(&own_role.id, "role:*"), "GRANT_NOT_HELD"),
        (with_level(&own_role.id, RoleLevel::Manager), "LEVEL_TOO_HIGH"),
        (with_level(&own_role.id, RoleLevel::OrgAdmin), "LEVEL_TOO_HIGH"),
        (with_level(&stronger_role, RoleLevel::Viewer), "GRANT_NOT_HELD"),
        (with_level(&higher_role, RoleLevel::Member), "LEVEL_TOO_HIGH"),
        (with_permission(&higher_role, "doc:read"), "LEVEL_TOO_HIGH"),
        // The update removes `doc:write`, which the caller does not hold.
        (with_permission(&stronger_role, "doc:read"), "GRANT_NOT_HELD"),
    ] {
        assert_refused(try_update(&ada, request).await, Code::PermissionDenied, reason);
    }
    assert_eq!(get_role(&acme, &own_role.id).await, own_role, "the role is unchanged");
    assert_eq!(get_role(&acme, &higher_role).await.level(), RoleLevel::Manager);
    let equal_role = acme.create_role("weak", RoleLevel::Member, &["role:read"]).await;
    update_role(&ada, with_permission(&equal_role, "doc:read")).await;
}

#[tokio::test]
async fn only_platform_staff_change_system_roles() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);
    let viewer_role = acme.system_role("viewer").await;
    let request =
        UpdateRoleRequest { permissions: vec!["doc:read".into()], ..update_request(&viewer_role) };

    let result = try_update(&acme, request.clone()).await;
    assert_refused(result, Code::PermissionDenied, "SYSTEM_ROLE");
    assert_eq!(update_role(&platform_admin_in_acme, request).await.permissions, ["doc:read"]);
}

/// F03: a role that is not a system role cannot get the permission `*:*`.
/// F04: the caller cannot give a role the level of the platform.
#[tokio::test]
async fn an_update_is_validated_like_a_creation() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);
    let id = acme.create_role("ops", RoleLevel::Member, &[]).await;
    acme.create_role("dev", RoleLevel::Member, &[]).await;

    let wildcard_request =
        UpdateRoleRequest { permissions: vec!["*:*".into()], ..update_request(&id) };
    assert_refused(
        try_update(&acme, wildcard_request.clone()).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
    assert_refused(
        try_update(&platform_admin_in_acme, wildcard_request).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
    let level = RoleLevel::PlatformAdmin.into();
    let level_request = UpdateRoleRequest { level: Some(level), ..update_request(&id) };
    assert_refused(
        try_update(&acme, level_request.clone()).await,
        Code::PermissionDenied,
        "LEVEL_TOO_HIGH",
    );
    assert_refused(
        try_update(&platform_admin_in_acme, level_request).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
    let rename_request = UpdateRoleRequest { name: Some("dev".into()), ..update_request(&id) };
    assert_refused(try_update(&acme, rename_request).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
}

/// D02: the responses are equal, so they do not reveal whether the role exists.
#[tokio::test]
async fn another_tenants_role_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let other_tenants_role = a.create_role("ops", RoleLevel::Member, &[]).await;

    let mut refusals = Vec::new();
    for id in [other_tenants_role, unknown_id()] {
        let rename_request = UpdateRoleRequest { name: Some("mine".into()), ..update_request(&id) };
        let update_status =
            assert_refused(try_update(&b, rename_request).await, Code::NotFound, "NOT_FOUND");
        let reply = b.roles().get_role(GetRoleRequest { role_id: id }).await;
        let get_status = assert_refused(reply, Code::NotFound, "NOT_FOUND");
        refusals.push((update_status.message().to_owned(), update_status.details().to_vec()));
        refusals.push((get_status.message().to_owned(), get_status.details().to_vec()));
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1);
}
