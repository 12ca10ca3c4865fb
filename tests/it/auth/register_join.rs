//! AuthService.Register: the registration as a member of an existing organisation.

use serde_json::json;
use tenantry::proto::v1::{
    RegisterRequest, SuspendTenantRequest, UpdateTenantRequest, WhoAmIRequest,
};
use tonic::Code;

use super::register::{register, registered};
use crate::harness::{Client, PASSWORD, TestApp, refused, struct_of};

fn join(slug: &str) -> RegisterRequest {
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
    admin.tenants().update_tenant(request).await.expect("set");
}

#[tokio::test]
async fn users_join_as_members_when_the_settings_allow_it() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let anonymous = app.anonymous();

    let reply = register(&anonymous, join("acme")).await;
    refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
    update_settings(&acme, json!({ "self_registration": true })).await;
    let reply = registered(&anonymous, join("acme")).await;
    assert_eq!(reply.tenant.expect("the tenant").id, acme.tenant_id);
    let bob = anonymous.login("acme", "bob@new.test", PASSWORD).await;
    let me = bob.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
    assert_eq!(me.roles, ["member"]);
    assert!(!bob.may("", "user:read").await);
    let duplicate =
        register(&anonymous, RegisterRequest { email: "BOB@new.test".into(), ..join("acme") });
    refused(duplicate.await, Code::AlreadyExists, "EMAIL_TAKEN");

    update_settings(&acme, json!({ "self_registration": false })).await;
    let other = RegisterRequest { email: "eve@new.test".into(), ..join("acme") };
    let reply = register(&anonymous, other).await;
    refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
}

#[tokio::test]
async fn the_tenant_comes_from_metadata_or_the_body() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true })).await;
    let anonymous = app.anonymous();

    for (number, key, value) in [
        (0, "x-tenant-id", acme.tenant_id.as_str()),
        (1, "x-tenant-id", "acme"),
        (2, "x-organization-slug", "acme"),
    ] {
        let request = RegisterRequest { email: format!("u{number}@new.test"), ..join("") };
        let reply = registered(&anonymous.with(key, value), request).await;
        assert_eq!(reply.tenant.expect("the tenant").id, acme.tenant_id);
    }
    let founding = RegisterRequest { organization_name: "New".into(), ..join("") };
    let reply = register(&anonymous.with("x-tenant-id", "acme"), founding).await;
    refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn joining_requires_a_known_active_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true })).await;
    let staff = app.platform_admin().await;
    let request = SuspendTenantRequest { tenant: "acme".into() };
    staff.tenants().suspend_tenant(request).await.expect("suspended");
    let anonymous = app.anonymous();

    for (client, slug, code, reason) in [
        (anonymous.clone(), "", Code::InvalidArgument, "TENANT_REQUIRED"),
        (anonymous.clone(), "nowhere", Code::NotFound, "NOT_FOUND"),
        (anonymous.with("x-tenant-id", "nowhere"), "", Code::NotFound, "NOT_FOUND"),
        (anonymous.clone(), "acme", Code::PermissionDenied, "REGISTRATION_CLOSED"),
        (anonymous.clone(), "platform", Code::PermissionDenied, "REGISTRATION_CLOSED"),
    ] {
        refused(register(&client, join(slug)).await, code, reason);
    }
}

/// N11: users cannot join a tenant without a role for new members, even with self-registration.
#[tokio::test]
async fn the_platform_and_a_tenant_without_the_member_role_cannot_be_joined() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    let open = json!({ "self_registration": true });
    let enable_self_registration = |tenant: &str| UpdateTenantRequest {
        tenant: tenant.into(),
        settings: struct_of(open.clone()),
        ..UpdateTenantRequest::default()
    };
    let anonymous = app.anonymous();
    let assert_cannot_join = async |slug: &str| {
        let reply = register(&anonymous, join(slug)).await;
        refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
    };
    for tenant in ["", "platform"] {
        let refusal = root.tenants().update_tenant(enable_self_registration(tenant)).await;
        refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
    }
    assert_cannot_join("platform").await;
    // A role with the name `member` does not open the platform for self-registration.
    let role = tenantry::proto::v1::CreateRoleRequest {
        name: "member".into(),
        level: tenantry::proto::v1::RoleLevel::Member.into(),
        system: true,
        ..Default::default()
    };
    root.roles().create_role(role).await.expect("made");
    let refusal = root.tenants().update_tenant(enable_self_registration("")).await;
    refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
    // A tenant may have stored this setting before UpdateTenant refused the setting.
    let store_setting = "update tenants set settings = '{\"self_registration\": true}'";
    sqlx::query(store_setting).execute(&mut app.owner().await).await.expect("set");
    assert_cannot_join("platform").await;

    let request = tenantry::proto::v1::DeleteRoleRequest {
        role_id: acme.system_role("member").await,
        ..Default::default()
    };
    let staff = root.with("x-tenant-id", &acme.tenant_id);
    staff.roles().delete_role(request).await.expect("deleted");
    assert_cannot_join("acme").await;
    update_settings(&acme, json!({})).await;
    let refusal = acme.tenants().update_tenant(enable_self_registration("")).await;
    refused(refusal, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn a_retry_gets_the_first_result() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true })).await;
    let anonymous = app.anonymous();
    let once = || RegisterRequest { request_id: "once".into(), ..join("acme") };

    let calls = (0..5).map(|_| registered(&anonymous, once()));
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|result| *result == results[0]));
    let other = RegisterRequest { email: "eve@new.test".into(), ..once() };
    refused(register(&anonymous, other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn a_tenant_may_require_longer_passwords() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    update_settings(&acme, json!({ "self_registration": true, "password_min_length": 12 })).await;
    let anonymous = app.anonymous();
    let join_with_password =
        |password: &str| RegisterRequest { password: password.into(), ..join("acme") };

    let short = register(&anonymous, join_with_password("elevenchars")).await;
    refused(short, Code::InvalidArgument, "INVALID_FIELDS");
    registered(&anonymous, join_with_password("twelve chars")).await;
}
