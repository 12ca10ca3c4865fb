//! AuthService.WhoAmI

use serde_json::json;
use tenantry::proto::v1::RoleLevel;

use crate::harness::{TestApp, wait_until};

#[tokio::test]
async fn who_am_i_returns_user_tenant_session_roles_and_permissions() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read", "bill:*"]).await;
    let second_role = acme.create_role("more", RoleLevel::Member, &["doc:read", "a:b"]).await;
    let scoped = acme.create_role("scoped", RoleLevel::Member, &["doc:write"]).await;
    acme.assign(&ada.user_id, &second_role).await;
    acme.assign_with_scope(&ada.user_id, &scoped, json!({ "p": "x" })).await;
    acme.assign_with_scope(&ada.user_id, &scoped, json!({ "p": "y" })).await;

    let me = ada.identity().await;
    assert_eq!(me.user.expect("a user").id, ada.user_id);
    assert_eq!(me.tenant.expect("a tenant").slug, "acme");
    assert_eq!(me.session_id, ada.tokens.session_id);
    assert_eq!(me.roles, ["ada", "more", "scoped"], "current roles, not those in the token");
    assert_eq!(
        me.permissions,
        ["a:b", "bill:*", "doc:read"],
        "permissions of scoped assignments are left out"
    );
}

#[tokio::test]
async fn expired_assignments_are_left_out() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_for_an_hour(&ada.user_id, &role).await;

    assert_eq!(ada.identity().await.roles, ["ops"]);
    app.expire_assignments(&ada.user_id).await;
    let has_expired = || async {
        let me = ada.identity().await;
        me.roles.is_empty() && me.permissions.is_empty()
    };
    wait_until(1, has_expired).await;
}

#[tokio::test]
async fn platform_staff_in_another_tenant_get_their_own_identity() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    let me = platform_admin.with_metadata("x-tenant-id", &acme.tenant_id).identity().await;
    assert_eq!(me.user.expect("a user").id, platform_admin.user_id);
    assert_eq!(me.tenant.expect("a tenant").slug, "platform");
}
