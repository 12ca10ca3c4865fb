//! RoleService.CreateRole

use serde_json::json;
use tenantry::proto::v1::{CreateRoleRequest, Role, RoleLevel, UpdateRoleRequest};
use tonic::{Code, Status};

use crate::harness::{Client, TestApp, assert_refused};

pub fn role_request(name: &str, level: RoleLevel, permissions: &[&str]) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        level: level.into(),
        permissions: permissions.iter().map(|p| (*p).into()).collect(),
        ..CreateRoleRequest::default()
    }
}

pub type CreateResult = Result<tonic::Response<tenantry::proto::v1::CreateRoleResponse>, Status>;

pub async fn create(client: &Client, request: CreateRoleRequest) -> CreateResult {
    client.roles().create_role(request).await
}

pub fn created_role(result: CreateResult) -> Role {
    result.expect("the role is created").into_inner().role.expect("the role")
}

#[tokio::test]
async fn a_role_is_created_as_requested() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let request =
        role_request("Ops team", RoleLevel::Manager, &["doc:write", "a:*", "doc:write", "*:read"]);
    let role = created_role(create(&acme, request).await);
    assert_eq!(role.tenant_id, acme.tenant_id);
    assert_eq!(role.name, "Ops team");
    assert_eq!(role.level(), RoleLevel::Manager);
    assert_eq!(role.permissions, ["*:read", "a:*", "doc:write"], "sorted, without duplicates");
    assert!(!role.system && !role.etag.is_empty());
    assert_eq!(role.create_time, role.update_time);
}

/// F04: permissions that the creator holds only within a scope do not count.
#[tokio::test]
async fn nobody_creates_a_role_that_grants_more_than_the_creator_holds() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:create", "doc:*", "bill:read"]).await;
    // Rights within a scope do not count.
    let scoped_role = acme.create_role("scoped", RoleLevel::Member, &["bill:write"]).await;
    acme.assign_with_scope(&ada.user_id, &scoped_role, json!({ "p": "x" })).await;

    created_role(
        create(&ada, role_request("own", RoleLevel::Member, &["doc:read", "doc:*", "bill:read"]))
            .await,
    );
    for unheld_permission in ["bill:write", "bill:*", "*:read", "docs:read", "*:doc"] {
        let result =
            create(&ada, role_request("more", RoleLevel::Member, &["doc:read", unheld_permission]))
                .await;
        assert_refused(result, Code::PermissionDenied, "GRANT_NOT_HELD");
    }
}

/// F04: a level that the caller holds only within a scope does not count.
#[tokio::test]
async fn a_caller_cannot_create_a_role_of_a_higher_level_than_its_own() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:create"]).await;
    // A level within a scope does not count.
    let higher_role = acme.create_role("high", RoleLevel::Manager, &[]).await;
    acme.assign_with_scope(&ada.user_id, &higher_role, json!({ "p": "x" })).await;

    created_role(create(&ada, role_request("equal", RoleLevel::Member, &[])).await);
    for level in [RoleLevel::Manager, RoleLevel::OrgAdmin, RoleLevel::PlatformAdmin] {
        let result = create(&ada, role_request("above", level, &[])).await;
        assert_refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    }
    let result = create(&acme, role_request("above", RoleLevel::PlatformAdmin, &[])).await;
    assert_refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
}

/// F03: only a system role may have the permission `*:*`.
#[tokio::test]
async fn only_platform_staff_create_system_roles() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);
    let system_role_request = |name: &str| CreateRoleRequest {
        system: true,
        ..role_request(name, RoleLevel::Member, &["*:*"])
    };

    assert_refused(
        create(&acme, system_role_request("all")).await,
        Code::PermissionDenied,
        "SYSTEM_ROLE",
    );
    let system_role =
        created_role(create(&platform_admin_in_acme, system_role_request("all")).await);
    assert!(system_role.system);
    assert_eq!(
        (system_role.tenant_id, system_role.permissions),
        (acme.tenant_id.clone(), vec!["*:*".into()])
    );

    for client in [&acme, &platform_admin_in_acme] {
        let result = create(client, role_request("plain", RoleLevel::Member, &["*:*"])).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn the_platform_level_exists_only_in_the_platform_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let request = || role_request("root", RoleLevel::PlatformAdmin, &["tenant:read"]);

    let result =
        create(&platform_admin.with_metadata("x-tenant-id", &acme.tenant_id), request()).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(
        created_role(create(&platform_admin, request()).await).level(),
        RoleLevel::PlatformAdmin
    );
}

#[tokio::test]
async fn a_role_name_is_unique_in_its_tenant() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);

    created_role(create(&a, role_request("ops", RoleLevel::Member, &[])).await);
    let result = create(&a, role_request("ops", RoleLevel::Viewer, &[])).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let result = create(&a, role_request("org_admin", RoleLevel::Viewer, &[])).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    created_role(create(&b, role_request("ops", RoleLevel::Member, &[])).await);
}

/// N16: no role may have a name similar to that of a built-in role.
#[tokio::test]
async fn similar_names_count_as_the_same_name() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);
    let viewer_role_request = |name: &str| role_request(name, RoleLevel::Viewer, &[]);

    created_role(create(&acme, viewer_role_request("Ops Team")).await);
    let dev_role = created_role(create(&acme, viewer_role_request("dev")).await);
    let rename_request = |name: &str| UpdateRoleRequest {
        role_id: dev_role.id.clone(),
        name: Some(name.into()),
        ..UpdateRoleRequest::default()
    };
    for similar_name in ["ops team", "OPS_TEAM", "ops-team", "Ops. Team", "ops__team."] {
        assert_refused(
            create(&acme, viewer_role_request(similar_name)).await,
            Code::AlreadyExists,
            "ROLE_NAME_TAKEN",
        );
        let result = acme.roles().update_role(rename_request(similar_name)).await;
        assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    }
    for system_name in
        ["Org_Admin", "org admin", "OrgAdmin", "MANAGER", "Member", "viewer.", "platform_admin"]
    {
        for client in [&acme, &platform_admin_in_acme] {
            let result = create(client, viewer_role_request(system_name)).await;
            assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
            let result = client.roles().update_role(rename_request(system_name)).await;
            assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
        }
    }
    created_role(create(&acme, viewer_role_request("opsteam")).await);
    for name in ["Dev", "DEV.", "dev 2"] {
        let reply = acme
            .roles()
            .update_role(rename_request(name))
            .await
            .expect("a name similar to its old name");
        assert_eq!(reply.into_inner().role.expect("the role").name, name);
    }
    // The role has another name now, so `dev` is free.
    created_role(create(&acme, viewer_role_request("dev")).await);
}

/// N16: a role with a similar name can be renamed, but only to a name that is similar to no other
/// name.
#[tokio::test]
async fn older_roles_with_similar_names_remain_and_can_be_changed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (first_role, second_role) = (
        acme.create_role("first", RoleLevel::Viewer, &[]).await,
        acme.create_role("second", RoleLevel::Viewer, &[]).await,
    );
    // The state after the migration that added name keys: of similar names only one has a key.
    for (id, name, key) in [(&first_role, "Ops", Some("ops")), (&second_role, "ops ", None)] {
        let sql = "update roles set name = $2, name_key = $3 where role_id = $1::text::uuid";
        let update = sqlx::query(sql).bind(id).bind(name).bind(key);
        update.execute(&mut app.owner_connection().await).await.expect("the names are stored");
    }
    let update_request = |id: &str| UpdateRoleRequest { role_id: id.into(), ..Default::default() };
    let permissions_change =
        UpdateRoleRequest { permissions: vec!["a:b".into()], ..update_request(&second_role) };
    acme.roles()
        .update_role(permissions_change)
        .await
        .expect("a role with a similar name can be changed");
    let rename = UpdateRoleRequest { name: Some("ops".into()), ..update_request(&second_role) };
    let result = acme.roles().update_role(rename).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let result = create(&acme, role_request("OPS", RoleLevel::Viewer, &[])).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let rename = UpdateRoleRequest { name: Some("ops 2".into()), ..update_request(&second_role) };
    acme.roles().update_role(rename).await.expect("renamed");
}

/// F02: a permission and a role name must be well-formed.
#[tokio::test]
async fn malformed_roles_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let long_permission = format!("{}:read", "a".repeat(1024));

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
        // With a full-width colon.
        "users：read",
        "users:read\n",
        &long_permission,
    ] {
        let result =
            create(&acme, role_request("r", RoleLevel::Member, &["a:b", permission])).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    // A name has at most 100 characters.
    let long_name = "a".repeat(101);
    for name in ["", " x", "x ", "-x", "x\n", "x\0", "ä", &long_name] {
        let result = create(&acme, role_request(name, RoleLevel::Member, &[])).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    // The levels are 1 to 5.
    for level in [0, -1, 6, 99] {
        let request = CreateRoleRequest { level, ..role_request("r", RoleLevel::Member, &[]) };
        assert_refused(create(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
