//! AuthService.Register: the registration as a member of an existing tenant.

use serde_json::json;
use tenantry::proto::v1::{RegisterRequest, SuspendTenantRequest, UpdateTenantRequest};
use tonic::Code;

use super::register::{register, register_successfully};
use crate::harness::{Client, PASSWORD, TestApp, assert_refused, struct_of};

fn join_request(slug: &str) -> RegisterRequest {
    RegisterRequest {
        email: "bob@new.test".into(),
        password: PASSWORD.into(),
        organization_slug: slug.into(),
        ..RegisterRequest::default()
    }
}

async fn update_settings(admin: &Client, settings: serde_json::Value) {
    let request =
        UpdateTenantRequest { settings: struct_of(settings), ..UpdateTenantRequest::default() };
    admin.tenants().update_tenant(request).await.expect("the settings are stored");
}

#[tokio::test]
async fn users_join_as_members_when_the_settings_allow_it() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let anonymous = app.anonymous();

    let reply = register(&anonymous, join_request("acme")).await;
    assert_refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
    update_settings(&acme, json!({ "self_registration": true })).await;
    let reply = register_successfully(&anonymous, join_request("acme")).await;
    assert_eq!(reply.tenant.expect("the tenant").id, acme.tenant_id);
    let bob = anonymous.login("acme", "bob@new.test", PASSWORD).await;
    let me = bob.identity().await;
    assert_eq!(me.roles, ["member"]);
    assert!(!bob.may("user:read").await);
    let duplicate = register(
        &anonymous,
        RegisterRequest { email: "BOB@new.test".into(), ..join_request("acme") },
    );
    assert_refused(duplicate.await, Code::AlreadyExists, "EMAIL_TAKEN");

    update_settings(&acme, json!({ "self_registration": false })).await;
    let other_request = RegisterRequest { email: "eve@new.test".into(), ..join_request("acme") };
    let reply = register(&anonymous, other_request).await;
    assert_refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
}

#[tokio::test]
async fn the_tenant_comes_from_metadata_or_the_body() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true })).await;
    let anonymous = app.anonymous();

    for (number, key, value) in [
        (0, "x-tenant-id", acme.tenant_id.as_str()),
        (1, "x-tenant-id", "acme"),
        (2, "x-organization-slug", "acme"),
    ] {
        let request = RegisterRequest { email: format!("u{number}@new.test"), ..join_request("") };
        let reply = register_successfully(&anonymous.with_metadata(key, value), request).await;
        assert_eq!(reply.tenant.expect("the tenant").id, acme.tenant_id);
    }
    let new_tenant = RegisterRequest { organization_name: "New".into(), ..join_request("") };
    let reply = register(&anonymous.with_metadata("x-tenant-id", "acme"), new_tenant).await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn joining_requires_a_known_active_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true })).await;
    let platform_admin = app.platform_admin().await;
    let request = SuspendTenantRequest { tenant: "acme".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    let anonymous = app.anonymous();

    for (client, slug, code, reason) in [
        (anonymous.clone(), "", Code::InvalidArgument, "TENANT_REQUIRED"),
        (anonymous.clone(), "nowhere", Code::NotFound, "NOT_FOUND"),
        (anonymous.with_metadata("x-tenant-id", "nowhere"), "", Code::NotFound, "NOT_FOUND"),
        (anonymous.clone(), "acme", Code::PermissionDenied, "REGISTRATION_CLOSED"),
        (anonymous.clone(), "platform", Code::PermissionDenied, "REGISTRATION_CLOSED"),
    ] {
        assert_refused(register(&client, join_request(slug)).await, code, reason);
    }
}

/// Self-registration cannot be enabled for the platform tenant, or for a tenant without the role
/// `member`. A setting that was stored earlier has no effect.
#[tokio::test]
async fn the_platform_and_a_tenant_without_the_member_role_cannot_be_joined() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let self_registration = json!({ "self_registration": true });
    let enable_self_registration = |tenant: &str| UpdateTenantRequest {
        tenant: tenant.into(),
        settings: struct_of(self_registration.clone()),
        ..UpdateTenantRequest::default()
    };
    let anonymous = app.anonymous();
    let assert_cannot_join = async |slug: &str| {
        let reply = register(&anonymous, join_request(slug)).await;
        assert_refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
    };
    for tenant in ["", "platform"] {
        let refusal =
            platform_admin.tenants().update_tenant(enable_self_registration(tenant)).await;
        assert_refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
    }
    assert_cannot_join("platform").await;
    // A role with the name `member` does not open the platform for self-registration.
    let role = tenantry::proto::v1::CreateRoleRequest {
        name: "member".into(),
        level: tenantry::proto::v1::RoleLevel::Member.into(),
        system: true,
        ..Default::default()
    };
    platform_admin.roles().create_role(role).await.expect("created");
    let refusal = platform_admin.tenants().update_tenant(enable_self_registration("")).await;
    assert_refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
    // A tenant may have stored this setting before UpdateTenant refused the setting.
    let store_setting = "update tenants set settings = '{\"self_registration\": true}'";
    sqlx::query(store_setting).execute(&mut app.owner_connection().await).await.expect("stored");
    assert_cannot_join("platform").await;

    let request = tenantry::proto::v1::DeleteRoleRequest {
        role_id: acme.system_role("member").await,
        ..Default::default()
    };
    let platform_admin_in_acme = platform_admin.with_metadata("x-tenant-id", &acme.tenant_id);
    platform_admin_in_acme.roles().delete_role(request).await.expect("deleted");
    assert_cannot_join("acme").await;
    update_settings(&acme, json!({})).await;
    let refusal = acme.tenants().update_tenant(enable_self_registration("")).await;
    assert_refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn a_retry_gets_the_first_result() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true })).await;
    let anonymous = app.anonymous();
    let request_with_id = || RegisterRequest { request_id: "once".into(), ..join_request("acme") };

    let calls = (0..5).map(|_| register_successfully(&anonymous, request_with_id()));
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|result| *result == results[0]));
    let changed_request = RegisterRequest { email: "eve@new.test".into(), ..request_with_id() };
    assert_refused(
        register(&anonymous, changed_request).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
}

#[tokio::test]
async fn a_tenant_may_require_longer_passwords() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true, "password_min_length": 12 })).await;
    let anonymous = app.anonymous();
    let join_with_password =
        |password: &str| RegisterRequest { password: password.into(), ..join_request("acme") };

    let short_password_reply = register(&anonymous, join_with_password("elevenchars")).await;
    assert_refused(short_password_reply, Code::InvalidArgument, "INVALID_FIELDS");
    register_successfully(&anonymous, join_with_password("twelve chars")).await;
}
