//! RoleService.UpdateRole

use tenantry::proto::v1::{GetRoleRequest, Role, RoleLevel, UpdateRoleRequest, UpdateRoleResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, mask, refused, unknown_id};

fn change(role_id: &str) -> UpdateRoleRequest {
    UpdateRoleRequest { role_id: role_id.into(), ..UpdateRoleRequest::default() }
}

async fn update(
    client: &Client,
    request: UpdateRoleRequest,
) -> Result<Response<UpdateRoleResponse>, Status> {
    client.roles().update_role(request).await
}

async fn updated(client: &Client, request: UpdateRoleRequest) -> Role {
    update(client, request).await.expect("updated").into_inner().role.expect("the role")
}

async fn get(client: &Client, role_id: &str) -> Role {
    let request = GetRoleRequest { role_id: role_id.into() };
    client.roles().get_role(request).await.expect("found").into_inner().role.expect("the role")
}

#[tokio::test]
async fn the_mask_selects_the_changed_fields_and_without_one_the_set_fields_change() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let id = acme.create_role("ops", RoleLevel::Member, &["a:b"]).await;
    let all = UpdateRoleRequest {
        name: Some("dev".into()),
        level: Some(RoleLevel::Manager.into()),
        permissions: vec!["c:d".into()],
        ..change(&id)
    };

    let only_name = UpdateRoleRequest { update_mask: mask(&["name"]), ..all.clone() };
    let role = updated(&acme, only_name).await;
    assert_eq!((role.name.as_str(), role.level()), ("dev", RoleLevel::Member));
    assert_eq!(role.permissions, ["a:b"]);

    let set = UpdateRoleRequest { permissions: vec!["e:f".into()], ..change(&id) };
    assert_eq!(updated(&acme, set).await.permissions, ["e:f"]);
    let role = updated(&acme, all).await;
    assert_eq!(
        (role.level(), role.permissions.as_slice()),
        (RoleLevel::Manager, &["c:d".into()][..])
    );

    let emptied = UpdateRoleRequest { update_mask: mask(&["permissions"]), ..change(&id) };
    assert!(updated(&acme, emptied).await.permissions.is_empty());
    assert_eq!(get(&acme, &id).await.name, "dev");
}

#[tokio::test]
async fn a_mask_may_name_only_known_fields_that_are_set() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let id = acme.create_role("ops", RoleLevel::Member, &[]).await;

    for paths in [["*"], ["system"], ["id"], ["tenant_id"], ["name"], ["level"], ["permissions.0"]]
    {
        let request = UpdateRoleRequest { update_mask: mask(&paths), ..change(&id) };
        refused(update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_stale_etag_prevents_the_update() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let id = acme.create_role("ops", RoleLevel::Member, &[]).await;
    let read = get(&acme, &id).await;
    let rename = |name: &str, etag: &str| UpdateRoleRequest {
        name: Some(name.into()),
        etag: etag.into(),
        ..change(&id)
    };

    let first = updated(&acme, rename("first", &read.etag)).await;
    assert_ne!(first.etag, read.etag);
    assert!(first.update_time != read.update_time && first.create_time == read.create_time);
    let late = update(&acme, rename("second", &read.etag)).await;
    refused(late, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(get(&acme, &id).await.name, "first");
    updated(&acme, rename("second", &first.etag)).await;
}

/// F04: a caller cannot change anything above its own rights.
#[tokio::test]
async fn nobody_raises_itself_or_others_above_what_it_holds() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["role:read", "role:update", "doc:read"]).await;
    let own = get(&acme, &acme.role_named("ada").await).await;
    let strong = acme.create_role("strong", RoleLevel::Member, &["doc:write"]).await;
    let high = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let with = |id: &str, permission: &str| UpdateRoleRequest {
        permissions: vec![permission.into()],
        ..change(id)
    };
    let at =
        |id: &str, level: RoleLevel| UpdateRoleRequest { level: Some(level.into()), ..change(id) };

    for (request, reason) in [
        (with(&own.id, "doc:write"), "GRANT_NOT_HELD"),
        (with(&own.id, "role:*"), "GRANT_NOT_HELD"),
        (at(&own.id, RoleLevel::Manager), "LEVEL_TOO_HIGH"),
        (at(&own.id, RoleLevel::OrgAdmin), "LEVEL_TOO_HIGH"),
        (at(&strong, RoleLevel::Viewer), "GRANT_NOT_HELD"),
        (at(&high, RoleLevel::Member), "LEVEL_TOO_HIGH"),
        (with(&high, "doc:read"), "LEVEL_TOO_HIGH"),
        // A caller cannot take a permission from a role that it does not hold either.
        (with(&strong, "doc:read"), "GRANT_NOT_HELD"),
    ] {
        refused(update(&ada, request).await, Code::PermissionDenied, reason);
    }
    assert_eq!(get(&acme, &own.id).await, own, "nothing changed");
    assert_eq!(get(&acme, &high).await.level(), RoleLevel::Manager);
    let weak = acme.create_role("weak", RoleLevel::Member, &["role:read"]).await;
    updated(&ada, with(&weak, "doc:read")).await;
}

#[tokio::test]
async fn only_platform_staff_change_system_roles() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);
    let viewer = acme.system_role("viewer").await;
    let expected = UpdateRoleRequest { permissions: vec!["doc:read".into()], ..change(&viewer) };

    let result = update(&acme, expected.clone()).await;
    refused(result, Code::PermissionDenied, "SYSTEM_ROLE");
    assert_eq!(updated(&staff, expected).await.permissions, ["doc:read"]);
}

/// F03: system roles and the platform level are reserved for the platform.
#[tokio::test]
async fn an_update_has_the_same_limits_as_a_creation() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);
    let id = acme.create_role("ops", RoleLevel::Member, &[]).await;
    acme.create_role("dev", RoleLevel::Member, &[]).await;

    let all = UpdateRoleRequest { permissions: vec!["*:*".into()], ..change(&id) };
    refused(update(&acme, all.clone()).await, Code::InvalidArgument, "INVALID_FIELDS");
    refused(update(&staff, all).await, Code::InvalidArgument, "INVALID_FIELDS");
    let platform = RoleLevel::PlatformAdmin.into();
    let platform = UpdateRoleRequest { level: Some(platform), ..change(&id) };
    refused(update(&acme, platform.clone()).await, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    refused(update(&staff, platform).await, Code::InvalidArgument, "INVALID_FIELDS");
    let taken = UpdateRoleRequest { name: Some("dev".into()), ..change(&id) };
    refused(update(&acme, taken).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
}

/// D08: an object of another tenant gets the same answer as an unknown object.
#[tokio::test]
async fn another_tenants_role_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let other_tenants_role = a.create_role("ops", RoleLevel::Member, &[]).await;

    let mut seen = Vec::new();
    for id in [other_tenants_role, unknown_id()] {
        let rename = UpdateRoleRequest { name: Some("mine".into()), ..change(&id) };
        let status = refused(update(&b, rename).await, Code::NotFound, "NOT_FOUND");
        let read = b.roles().get_role(GetRoleRequest { role_id: id }).await;
        let read = refused(read, Code::NotFound, "NOT_FOUND");
        seen.push((status.message().to_owned(), status.details().to_vec()));
        seen.push((read.message().to_owned(), read.details().to_vec()));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}
