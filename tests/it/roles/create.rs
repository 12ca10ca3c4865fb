//! RoleService.CreateRole

use serde_json::json;
use tenantry::proto::v1::{CreateRoleRequest, Role, RoleLevel, UpdateRoleRequest};
use tonic::{Code, Status};

use crate::harness::{Client, TestApp, refused};

pub fn role(name: &str, level: RoleLevel, permissions: &[&str]) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        level: level.into(),
        permissions: permissions.iter().map(|p| (*p).into()).collect(),
        ..CreateRoleRequest::default()
    }
}

pub type Made = Result<tonic::Response<tenantry::proto::v1::CreateRoleResponse>, Status>;

pub async fn create(client: &Client, request: CreateRoleRequest) -> Made {
    client.roles().create_role(request).await
}

pub fn made(result: Made) -> Role {
    result.expect("a role is made").into_inner().role.expect("the role")
}

#[tokio::test]
async fn a_role_is_created_as_requested() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;

    let expected =
        role("Ops team", RoleLevel::Manager, &["doc:write", "a:*", "doc:write", "*:read"]);
    let role = made(create(&acme, expected).await);
    assert_eq!(role.tenant_id, acme.tenant_id);
    assert_eq!(role.name, "Ops team");
    assert_eq!(role.level(), RoleLevel::Manager);
    assert_eq!(role.permissions, ["*:read", "a:*", "doc:write"], "sorted, without duplicates");
    assert!(!role.system && !role.etag.is_empty());
    assert_eq!(role.create_time, role.update_time);
}

/// F04: a caller cannot change anything above its own rights.
#[tokio::test]
async fn nobody_creates_a_role_that_grants_more_than_the_creator_holds() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["role:create", "doc:*", "bill:read"]).await;
    let scoped = acme.create_role("scoped", RoleLevel::Member, &["bill:write"]).await;
    acme.assign_within(&ada.user_id, &scoped, json!({ "p": "x" })).await;

    made(create(&ada, role("own", RoleLevel::Member, &["doc:read", "doc:*", "bill:read"])).await);
    for more in ["bill:write", "bill:*", "*:read", "docs:read", "*:doc"] {
        let result = create(&ada, role("more", RoleLevel::Member, &["doc:read", more])).await;
        refused(result, Code::PermissionDenied, "GRANT_NOT_HELD");
    }
}

/// F04: a caller cannot change anything above its own rights.
#[tokio::test]
async fn nobody_creates_a_role_above_its_own_level() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["role:create"]).await;
    let high = acme.create_role("high", RoleLevel::Manager, &[]).await;
    acme.assign_within(&ada.user_id, &high, json!({ "p": "x" })).await;

    made(create(&ada, role("equal", RoleLevel::Member, &[])).await);
    for level in [RoleLevel::Manager, RoleLevel::OrgAdmin, RoleLevel::PlatformAdmin] {
        let result = create(&ada, role("above", level, &[])).await;
        refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    }
    let result = create(&acme, role("above", RoleLevel::PlatformAdmin, &[])).await;
    refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
}

/// F03: system roles and the platform level are reserved for the platform.
#[tokio::test]
async fn only_platform_staff_create_system_roles() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);
    let system =
        |name: &str| CreateRoleRequest { system: true, ..role(name, RoleLevel::Member, &["*:*"]) };

    refused(create(&acme, system("all")).await, Code::PermissionDenied, "SYSTEM_ROLE");
    let all = made(create(&staff, system("all")).await);
    assert!(all.system);
    assert_eq!((all.tenant_id, all.permissions), (acme.tenant_id.clone(), vec!["*:*".into()]));

    for maker in [&acme, &staff] {
        let result = create(maker, role("plain", RoleLevel::Member, &["*:*"])).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn the_platform_level_exists_only_in_the_platform_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await;
    let expected = || role("root", RoleLevel::PlatformAdmin, &["tenant:read"]);

    let created_in_other_tenant =
        create(&staff.with("x-tenant-id", &acme.tenant_id), expected()).await;
    refused(created_in_other_tenant, Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(made(create(&staff, expected()).await).level(), RoleLevel::PlatformAdmin);
}

#[tokio::test]
async fn a_role_name_is_unique_in_its_tenant() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);

    made(create(&a, role("ops", RoleLevel::Member, &[])).await);
    let again = create(&a, role("ops", RoleLevel::Viewer, &[])).await;
    refused(again, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let system = create(&a, role("org_admin", RoleLevel::Viewer, &[])).await;
    refused(system, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    made(create(&b, role("ops", RoleLevel::Member, &[])).await);
}

/// N16: names that look alike are one name.
#[tokio::test]
async fn similar_names_count_as_the_same_name() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);
    let plain = |name: &str| role(name, RoleLevel::Viewer, &[]);

    made(create(&acme, plain("Ops Team")).await);
    let dev = made(create(&acme, plain("dev")).await);
    let rename = |name: &str| UpdateRoleRequest {
        role_id: dev.id.clone(),
        name: Some(name.into()),
        ..UpdateRoleRequest::default()
    };
    for taken in ["ops team", "OPS_TEAM", "ops-team", "Ops. Team", "ops__team."] {
        refused(create(&acme, plain(taken)).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
        let renamed = acme.roles().update_role(rename(taken)).await;
        refused(renamed, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    }
    for built_in in
        ["Org_Admin", "org admin", "OrgAdmin", "MANAGER", "Member", "viewer.", "platform_admin"]
    {
        for maker in [&acme, &staff] {
            let result = create(maker, plain(built_in)).await;
            refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
            let renamed = maker.roles().update_role(rename(built_in)).await;
            refused(renamed, Code::AlreadyExists, "ROLE_NAME_TAKEN");
        }
    }
    made(create(&acme, plain("opsteam")).await);
    for name in ["Dev", "DEV.", "dev 2"] {
        let renamed = acme.roles().update_role(rename(name)).await.expect("its own name");
        assert_eq!(renamed.into_inner().role.expect("the role").name, name);
    }
    made(create(&acme, plain("dev")).await);
}

/// N16: names that look alike are one name.
#[tokio::test]
async fn older_roles_with_clashing_names_remain_and_can_be_changed() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let (first, second) = (
        acme.create_role("first", RoleLevel::Viewer, &[]).await,
        acme.create_role("second", RoleLevel::Viewer, &[]).await,
    );
    for (id, name, key) in [(&first, "Ops", Some("ops")), (&second, "ops ", None)] {
        let sql = "update roles set name = $2, name_key = $3 where role_id = $1::text::uuid";
        let done = sqlx::query(sql).bind(id).bind(name).bind(key);
        done.execute(&mut app.owner().await).await.expect("as migrated");
    }
    let change = |id: &str| UpdateRoleRequest { role_id: id.into(), ..Default::default() };
    let more = UpdateRoleRequest { permissions: vec!["a:b".into()], ..change(&second) };
    acme.roles().update_role(more).await.expect("changed under its old name");
    let trimmed = UpdateRoleRequest { name: Some("ops".into()), ..change(&second) };
    let trimmed = acme.roles().update_role(trimmed).await;
    refused(trimmed, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let third = create(&acme, role("OPS", RoleLevel::Viewer, &[])).await;
    refused(third, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let other = UpdateRoleRequest { name: Some("ops 2".into()), ..change(&second) };
    acme.roles().update_role(other).await.expect("renamed");
}

/// F02: a permission and a role name must be well-formed.
#[tokio::test]
async fn malformed_roles_are_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let long = format!("{}:read", "a".repeat(1024));

    for permission in [
        "",
        "users",
        "users:",
        ":read",
        "Users:READ",
        "users:read:x",
        "users:re*d",
        "*",
        "users:**",
        "users:read\0",
        "users：read",
        "users:read\n",
        &long,
    ] {
        let result = create(&acme, role("r", RoleLevel::Member, &["a:b", permission])).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let name = "a".repeat(101);
    for name in ["", " x", "x ", "-x", "x\n", "x\0", "ä", &name] {
        let result = create(&acme, role(name, RoleLevel::Member, &[])).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    for level in [0, -1, 6, 99] {
        let request = CreateRoleRequest { level, ..role("r", RoleLevel::Member, &[]) };
        refused(create(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
