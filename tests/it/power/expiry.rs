//! A caller that holds a right until an expiry can give the right only until the same expiry.

use prost_types::Timestamp;
use tenantry::{
    clock,
    proto::v1::{
        AssignRoleRequest, AssignRoleResponse, CreateApiKeyRequest, CreateRoleRequest,
        DisableUserRequest, EnableUserRequest, RegisterRequest, RoleLevel, UnassignRoleRequest,
        UpdateRoleRequest, UpdateTenantRequest,
    },
};
use time::{Duration, OffsetDateTime};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, mask, reason, struct_of};

async fn assign(
    caller: &Client,
    user: &str,
    role: &str,
    expiry: Option<OffsetDateTime>,
) -> Result<Response<AssignRoleResponse>, Status> {
    let request = AssignRoleRequest {
        user_id: user.into(),
        role_id: role.into(),
        expire_time: expiry.map(clock::timestamp).map(|at| Timestamp { nanos: 0, ..at }),
        ..AssignRoleRequest::default()
    };
    caller.roles().assign_role(request).await
}

/// Creates a user that has a role until `expiry`, and signs the user in.
async fn create_holder_until(
    app: &TestApp,
    admin: &Client,
    name: &str,
    role: &str,
    expiry: OffsetDateTime,
) -> Client {
    let user = admin.create_user_without_password(&format!("{name}@acme.test")).await;
    assign(admin, &user, role, Some(expiry)).await.expect("assigned");
    app.create_session(&user, admin).await
}

/// N11: a user to whom the temporary administrator assigns the role has the same limit.
#[tokio::test]
async fn a_temporary_administrator_assigns_only_until_its_own_expiry() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (role, expiry) = (acme.system_role("org_admin").await, clock::now() + Duration::hours(1));
    let temporary = create_holder_until(&app, &acme, "temporary", &role, expiry).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;

    for later in [None, Some(expiry + Duration::seconds(1)), Some(expiry + Duration::days(400))] {
        for user in [&bob, &temporary.user_id] {
            let refusal = assign(&temporary, user, &role, later).await;
            let status = assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
            let latest = expiry.replace_nanosecond(0).expect("a time");
            let latest = latest.format(&time::format_description::well_known::Rfc3339);
            assert!(status.message().contains(&latest.expect("text")), "{}", status.message());
        }
    }
    assign(&temporary, &bob, &role, Some(expiry)).await.expect("until the caller's own expiry");
    // The next holder has the same expiry.
    let bob = app.create_session(&bob, &acme).await;
    let carol = acme.create_user_without_password("carol@acme.test").await;
    let refusal = assign(&bob, &carol, &role, None).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
}

/// N11: for each permission and for the level, the grant with the latest expiry sets the limit.
#[tokio::test]
async fn each_permission_and_the_level_have_a_separate_expiry() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let lead = acme.create_role("lead", RoleLevel::Manager, &["role:assign", "doc:read"]).await;
    let ada =
        create_holder_until(&app, &acme, "ada", &lead, clock::now() + Duration::hours(1)).await;
    let docs = acme.create_role("docs", RoleLevel::Member, &["doc:*"]).await;
    acme.assign(&ada.user_id, &docs).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;

    let reader = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    assign(&ada, &bob, &reader, None).await.expect("another role grants `doc:read` without expiry");
    let assigner = acme.create_role("assigner", RoleLevel::Member, &["role:assign"]).await;
    let refusal = assign(&ada, &bob, &assigner, None).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    let higher_level = acme.create_role("higher level", RoleLevel::Manager, &[]).await;
    let refusal = assign(&ada, &bob, &higher_level, None).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    // The transaction of the call reads the caller's grants again and ignores cached decisions.
    app.expire_assignments(&ada.user_id).await;
    let refusal =
        assign(&ada, &bob, &higher_level, Some(clock::now() + Duration::minutes(1))).await;
    let reason = reason(&refusal.expect_err("the grant has expired"));
    assert!(["LEVEL_TOO_HIGH", "PERMISSION_MISSING"].contains(&reason.as_str()), "{reason}");
}

/// N11: an edit of a role applies to all its holders, without an expiry.
#[tokio::test]
async fn a_role_gets_only_permissions_that_its_editor_holds_without_expiry() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let admin = acme.system_role("org_admin").await;
    let temporary =
        create_holder_until(&app, &acme, "temp", &admin, clock::now() + Duration::hours(1)).await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:*", "log:read"]).await;
    let edit = |permissions: &[&str], level: Option<RoleLevel>| UpdateRoleRequest {
        role_id: role.clone(),
        permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
        level: level.map(Into::into),
        ..UpdateRoleRequest::default()
    };
    for adding_edit in [
        edit(&["doc:*", "log:read", "log:write"], None),
        edit(&["doc:*", "*:read"], None),
        edit(&[], Some(RoleLevel::Manager)),
    ] {
        let refusal = temporary.roles().update_role(adding_edit).await;
        assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    }
    for reducing_edit in [edit(&["doc:read"], None), edit(&[], Some(RoleLevel::Viewer))] {
        temporary.roles().update_role(reducing_edit).await.expect("the edit adds nothing");
    }
}

/// N11: a change of the role's name gives no rights, so any editor may make it.
#[tokio::test]
async fn a_role_is_changed_only_by_a_caller_with_the_rights_of_all_its_holders() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada =
        acme.create_member("ada", &["role:update", "role:delete", "doc:read", "doc:write"]).await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let edit = |name: Option<&str>, permission: &str| UpdateRoleRequest {
        role_id: role.clone(),
        name: name.map(Into::into),
        permissions: Some(permission.to_owned())
            .filter(|text| !text.is_empty())
            .into_iter()
            .collect(),
        ..UpdateRoleRequest::default()
    };
    acme.assign(&acme.user_id, &role).await;
    let refusal = ada.roles().update_role(edit(None, "doc:write")).await;
    assert_refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    ada.roles().update_role(edit(Some("renamed"), "")).await.expect("renaming gives no power");
    acme.unassign(&acme.user_id, &role).await;
    ada.roles().update_role(edit(None, "doc:write")).await.expect("nobody holds the role");

    let secret_role = acme.create_role("more", RoleLevel::Member, &["secret:read"]).await;
    let request = UpdateRoleRequest {
        permissions: vec!["doc:read".into()],
        role_id: secret_role.clone(),
        ..UpdateRoleRequest::default()
    };
    let refusal = ada.roles().update_role(request).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
}

/// N11: enabling a user restores all grants of the user.
#[tokio::test]
async fn a_temporary_administrator_cannot_enable_a_user_with_longer_grants() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (role, expiry) = (acme.system_role("org_admin").await, clock::now() + Duration::hours(1));
    let temporary = create_holder_until(&app, &acme, "temp", &role, expiry).await;
    let user_with_lasting_role = acme.create_user_without_password("lasting@acme.test").await;
    acme.assign(&user_with_lasting_role, &role).await;
    let user_with_brief_role = acme.create_user_without_password("brief@acme.test").await;
    assign(&acme, &user_with_brief_role, &role, Some(expiry - Duration::minutes(1)))
        .await
        .expect("assigned");

    for user_id in [&user_with_lasting_role, &user_with_brief_role] {
        let request = DisableUserRequest { user_id: user_id.clone() };
        temporary
            .users()
            .disable_user(request)
            .await
            .expect("the caller holds the rights of both users now");
    }
    let refusal = temporary
        .users()
        .enable_user(EnableUserRequest { user_id: user_with_lasting_role.clone() })
        .await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    temporary
        .users()
        .enable_user(EnableUserRequest { user_id: user_with_brief_role })
        .await
        .expect("enabled");
    acme.users()
        .enable_user(EnableUserRequest { user_id: user_with_lasting_role })
        .await
        .expect("enabled");
}

/// N11: a role within a scope gives its holder no right outside of the scope.
#[tokio::test]
async fn a_caller_cannot_raise_its_own_power_but_may_reduce_it() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:assign", "role:update", "role:create"]).await;
    let own_role = acme.role_id("ada").await;
    let secret_role = acme.create_role("more", RoleLevel::Member, &["secret:read"]).await;
    let refusal = assign(&ada, &ada.user_id, &secret_role, None).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
    let high_role = acme.create_role("high", RoleLevel::Manager, &["secret:read"]).await;
    acme.assign_with_scope(&ada.user_id, &high_role, serde_json::json!({ "p": "x" })).await;
    // A role that is assigned within a scope gives no right outside of the scope, but its holder
    // may unassign the role.
    let refusal = assign(&ada, &ada.user_id, &high_role, None).await;
    assert_refused(refusal, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    for role_id in [high_role, own_role] {
        let request = UnassignRoleRequest {
            user_id: ada.user_id.clone(),
            role_id,
            all_scopes: true,
            ..UnassignRoleRequest::default()
        };
        ada.roles().unassign_role(request).await.expect("the role is unassigned");
    }
}

/// N11: platform staff who may work in other tenants for a while give nothing there that lasts
/// longer.
#[tokio::test]
async fn temporary_staff_give_only_temporary_rights_in_other_tenants() {
    let app = TestApp::shared();
    let (acme, platform_admin) = (app.create_tenant("acme").await, app.platform_admin().await);
    let permissions = ["user:*", "role:*", "api_key:*", "doc:read"];
    let name = format!("support {}", acme.slug);
    let role = platform_admin.create_role(&name, RoleLevel::OrgAdmin, &permissions).await;
    let act = format!("act {}", acme.slug);
    let act_role = platform_admin.create_role(&act, RoleLevel::Member, &["tenant:act"]).await;
    let email = format!("{}@platform.test", acme.slug);
    let staff_id = platform_admin.create_user_without_password(&email).await;
    platform_admin.assign(&staff_id, &role).await;
    let expiry = (clock::now() + Duration::hours(1)).replace_nanosecond(0).expect("a time");
    assign(&platform_admin, &staff_id, &act_role, Some(expiry)).await.expect("assigned");
    let staff = app.create_session(&staff_id, &platform_admin).await;
    let staff = staff.with_metadata("x-tenant-id", &acme.tenant_id);

    let reader_role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let bob = acme.create_user_without_password("bob@acme.test").await;
    let refusal = assign(&staff, &bob, &reader_role, None).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    assign(&staff, &bob, &reader_role, Some(expiry)).await.expect("as long as the staff may act");

    let carol = acme.create_user_without_password("carol@acme.test").await;
    acme.assign(&carol, &reader_role).await;
    let refusal = staff.change_email(&carol, "staff@acme.test").await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");

    let request = UpdateRoleRequest {
        role_id: reader_role,
        permissions: vec!["doc:read".into(), "user:read".into()],
        ..UpdateRoleRequest::default()
    };
    let refusal = staff.roles().update_role(request).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");

    let account = acme.create_service_account("worker", &[]).await;
    let request =
        CreateApiKeyRequest { service_account_id: account, ..CreateApiKeyRequest::default() };
    let key = staff.service_accounts().create_api_key(request).await.expect("created");
    let key = key.into_inner().api_key.expect("the key");
    assert_eq!(key.expire_time.map(|at| at.seconds), Some(expiry.unix_timestamp()));
}

/// N11: the role of everybody who registers is given without an expiry, so a temporary
/// administrator of the platform can't put another role in its place.
#[tokio::test]
async fn a_temporary_platform_administrator_cannot_replace_the_role_of_registration() {
    let app = TestApp::shared();
    let (acme, platform_admin) = (app.create_tenant("acme").await, app.platform_admin().await);
    let request = UpdateTenantRequest {
        settings: struct_of(serde_json::json!({ "self_registration": true })),
        update_mask: mask(&["settings"]),
        ..UpdateTenantRequest::default()
    };
    acme.tenants().update_tenant(request).await.expect("registration is open");
    let role = platform_admin.system_role("platform_admin").await;
    let email = format!("temporary-{}@platform.test", acme.slug);
    let temporary = platform_admin.create_user_without_password(&email).await;
    let expiry = clock::now() + Duration::hours(1);
    assign(&platform_admin, &temporary, &role, Some(expiry)).await.expect("assigned");
    let temporary = app.create_session(&temporary, &platform_admin).await;
    let temporary = temporary.with_metadata("x-tenant-id", &acme.tenant_id);

    let member = acme.system_role("member").await;
    let rename = |role_id: String, name: &str| UpdateRoleRequest {
        role_id,
        name: Some(name.into()),
        ..UpdateRoleRequest::default()
    };
    let platform_admin_in_acme = platform_admin.with_metadata("x-tenant-id", &acme.tenant_id);
    for client in [&temporary, &platform_admin_in_acme] {
        let refusal = client.roles().update_role(rename(member.clone(), "old member")).await;
        assert_refused(refusal, Code::PermissionDenied, "SYSTEM_ROLE");
    }
    let request = tenantry::proto::v1::DeleteRoleRequest {
        role_id: member,
        ..tenantry::proto::v1::DeleteRoleRequest::default()
    };
    temporary.roles().delete_role(request).await.expect("no user has the role");
    let org_admin = acme.system_role("org_admin").await;
    let refusal = temporary.roles().update_role(rename(org_admin, "member")).await;
    assert_refused(refusal, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let request = CreateRoleRequest {
        name: "member".into(),
        level: RoleLevel::OrgAdmin.into(),
        permissions: vec!["*:*".into()],
        system: true,
        ..CreateRoleRequest::default()
    };
    let refusal = temporary.roles().create_role(request.clone()).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    let register = || RegisterRequest {
        email: "eve@acme.test".into(),
        password: PASSWORD.into(),
        organization_slug: acme.slug.clone(),
        ..RegisterRequest::default()
    };
    let refusal = app.anonymous().auth().register(register()).await;
    assert_eq!(reason(&refusal.expect_err("there is no role")), "REGISTRATION_CLOSED");
    let request = CreateRoleRequest {
        level: RoleLevel::Member.into(),
        permissions: vec!["tenant:read".into()],
        ..request
    };
    platform_admin_in_acme.roles().create_role(request).await.expect("the role is restored");
    app.anonymous().auth().register(register()).await.expect("registers");
}
