//! PermissionService.ListPermissions

use serde_json::json;
use tenantry::proto::v1::{DisableUserRequest, ListPermissionsRequest, PermissionGrant, RoleLevel};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused, struct_of, unknown_id, wait_until};

async fn list(client: &Client, user_id: &str) -> Vec<PermissionGrant> {
    let request = ListPermissionsRequest { user_id: user_id.into(), ..Default::default() };
    let reply = client.permissions().list_permissions(request).await.expect("a list");
    reply.into_inner().permissions
}

#[tokio::test]
async fn the_permissions_of_a_subject_are_listed_with_scope_and_role() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let reader = acme.create_role("reader", RoleLevel::Member, &["doc:read", "bill:*"]).await;
    let writer = acme.create_role("writer", RoleLevel::Member, &["doc:write"]).await;
    acme.assign(&ada, &reader).await;
    acme.assign_with_scope(&ada, &writer, json!({ "project": ["x", "y"] })).await;

    let grant = |permission: &str, role: &str, scope| PermissionGrant {
        permission: permission.into(),
        role_name: role.into(),
        scope: struct_of(scope),
    };
    let expected = [
        grant("bill:*", "reader", json!(null)),
        grant("doc:read", "reader", json!(null)),
        grant("doc:write", "writer", json!({ "project": ["x", "y"] })),
    ];
    assert_eq!(list(&acme, &ada).await, expected);
}

#[tokio::test]
async fn without_a_permission_a_caller_may_list_only_its_own_permissions() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;

    assert_eq!(list(&ada, "").await, list(&acme, &ada.user_id).await);
    let request = ListPermissionsRequest { user_id: acme.user_id.clone(), ..Default::default() };
    let result = ada.permissions().list_permissions(request).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn nothing_is_listed_for_disabled_unknown_or_foreign_users() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &["doc:read"]).await.user_id;
    let request = DisableUserRequest { user_id: ada.clone() };
    acme.users().disable_user(request).await.expect("disabled");

    for user in [ada, unknown_id(), other.user_id] {
        assert_eq!(list(&acme, &user).await, []);
    }
}

#[tokio::test]
async fn expired_assignments_are_not_listed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_for_an_hour(&ada, &role).await;

    assert_eq!(list(&acme, &ada).await.len(), 1);
    app.expire_assignments(&ada).await;
    wait_until(1, || async { list(&acme, &ada).await.is_empty() }).await;
}
