//! RoleService.DeleteRole

use serde_json::json;
use tenantry::proto::v1::{DeleteRoleRequest, DeleteRoleResponse, GetRoleRequest, RoleLevel};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused, unknown_id};

async fn delete(client: &Client, id: &str) -> Result<Response<DeleteRoleResponse>, Status> {
    let request = DeleteRoleRequest { role_id: id.into(), etag: String::new() };
    client.roles().delete_role(request).await
}

/// F21: a role is deleted only without active holders, and a new role is a different role.
#[tokio::test]
async fn a_role_in_use_is_not_deleted() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_within(&ada, &role, json!({ "p": "x" })).await;

    refused(delete(&acme, &role).await, Code::FailedPrecondition, "ROLE_IN_USE");
    acme.unassign(&ada, &role).await;
    delete(&acme, &role).await.expect("deleted");
    let gone = acme.roles().get_role(GetRoleRequest { role_id: role.clone() }).await;
    refused(gone, Code::NotFound, "NOT_FOUND");
    refused(delete(&acme, &role).await, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn expired_assignments_do_not_keep_a_role_from_deletion() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_for_an_hour(&ada, &role).await;

    refused(delete(&acme, &role).await, Code::FailedPrecondition, "ROLE_IN_USE");
    app.let_expire(&ada).await;
    delete(&acme, &role).await.expect("deleted");
}

/// F21: a role is deleted only without active holders, and a new role is a different role.
#[tokio::test]
async fn a_recreated_role_grants_nothing_to_the_old_holders() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let first = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&ada, &first).await;
    assert!(acme.may(&ada, "doc:read").await);
    acme.unassign(&ada, &first).await;
    delete(&acme, &first).await.expect("deleted");

    let second = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    assert_ne!(first, second);
    assert!(!acme.may(&ada, "doc:read").await);
}

#[tokio::test]
async fn a_stale_etag_prevents_the_deletion() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;

    let stale = DeleteRoleRequest { role_id: role.clone(), etag: "v0".into() };
    let result = acme.roles().delete_role(stale).await;
    refused(result, Code::Aborted, "ETAG_MISMATCH");
    let reply = acme.roles().get_role(GetRoleRequest { role_id: role.clone() }).await;
    let etag = reply.expect("found").into_inner().role.expect("the role").etag;
    let current = DeleteRoleRequest { role_id: role, etag };
    acme.roles().delete_role(current).await.expect("deleted");
}

/// F04, D08: a caller cannot change anything above its own rights.
#[tokio::test]
async fn roles_above_the_caller_system_roles_and_foreign_roles_cannot_be_deleted() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let ada = acme.member("ada", &["role:delete"]).await;
    let high = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let viewer = acme.system_role("viewer").await;
    let manager = acme.system_role("manager").await;
    let other_tenants_role = other.create_role("ops", RoleLevel::Viewer, &[]).await;

    for (by, role, code, reason) in [
        (&ada, &high, Code::PermissionDenied, "LEVEL_TOO_HIGH"),
        (&ada, &manager, Code::PermissionDenied, "SYSTEM_ROLE"),
        (&ada, &viewer, Code::PermissionDenied, "SYSTEM_ROLE"),
        (&acme, &viewer, Code::PermissionDenied, "SYSTEM_ROLE"),
        (&acme, &other_tenants_role, Code::NotFound, "NOT_FOUND"),
        (&acme, &unknown_id(), Code::NotFound, "NOT_FOUND"),
    ] {
        refused(delete(by, role).await, code, reason);
    }
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);
    delete(&staff, &viewer).await.expect("deleted by the platform's staff");
}
