//! RoleService.DeleteRole

use serde_json::json;
use tenantry::proto::v1::{DeleteRoleRequest, DeleteRoleResponse, GetRoleRequest, RoleLevel};
use tonic::{Code, Response, Status};

use super::bounds::{insert_assignments, small_scopes_sql};
use crate::harness::{Client, TestApp, assert_refused, unknown_id};

async fn delete(client: &Client, id: &str) -> Result<Response<DeleteRoleResponse>, Status> {
    let request = DeleteRoleRequest { role_id: id.into(), etag: String::new() };
    client.roles().delete_role(request).await
}

/// F21: an assignment with a scope also means that the role is in use.
#[tokio::test]
async fn a_role_in_use_is_not_deleted() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_with_scope(&ada, &role, json!({ "p": "x" })).await;

    assert_refused(delete(&acme, &role).await, Code::FailedPrecondition, "ROLE_IN_USE");
    acme.unassign(&ada, &role).await;
    delete(&acme, &role).await.expect("deleted");
    let result = acme.roles().get_role(GetRoleRequest { role_id: role.clone() }).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    assert_refused(delete(&acme, &role).await, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn a_role_with_only_expired_assignments_can_be_deleted() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_for_an_hour(&ada, &role).await;

    assert_refused(delete(&acme, &role).await, Code::FailedPrecondition, "ROLE_IN_USE");
    app.expire_assignments(&ada).await;
    delete(&acme, &role).await.expect("deleted");
}

/// N21: a role may have any number of expired assignments. Their deletion changes no decision, so it
/// writes nothing to the change feed, where a row for each of them took most of the time.
#[tokio::test]
async fn deleting_expired_assignments_writes_no_changes() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let expired = "now() - interval '1 hour'";
    insert_assignments(&app, &ada, &role, &small_scopes_sql(2000), expired).await;
    let changes =
        "select count(*) from changes where kind = 'assignment' and subject_id = $1::uuid";
    let changes_before = app.count(changes, &ada).await;

    delete(&acme, &role).await.expect("deleted");
    assert_eq!(app.count(changes, &ada).await, changes_before);
    let assignments = "select count(*) from role_assignments where role_id = $1::uuid";
    assert_eq!(app.count(assignments, &role).await, 0);
}

/// F21: a new role with an old name has no assignments.
#[tokio::test]
async fn a_recreated_role_grants_nothing_to_the_old_holders() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let old_role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&ada, &old_role).await;
    assert!(acme.user_may(&ada, "doc:read").await);
    acme.unassign(&ada, &old_role).await;
    delete(&acme, &old_role).await.expect("deleted");

    let new_role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    assert_ne!(old_role, new_role);
    assert!(!acme.user_may(&ada, "doc:read").await);
}

#[tokio::test]
async fn a_stale_etag_prevents_the_deletion() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;

    let stale_request = DeleteRoleRequest { role_id: role.clone(), etag: "v0".into() };
    let result = acme.roles().delete_role(stale_request).await;
    assert_refused(result, Code::Aborted, "ETAG_MISMATCH");
    let reply = acme.roles().get_role(GetRoleRequest { role_id: role.clone() }).await;
    let etag = reply.expect("found").into_inner().role.expect("the role").etag;
    let current_request = DeleteRoleRequest { role_id: role, etag };
    acme.roles().delete_role(current_request).await.expect("deleted");
}

/// F04: a role of a higher level and a system role are protected, even a system role of a low
/// level.
/// D02: a role of another tenant gets the same response as an unknown role.
#[tokio::test]
async fn higher_roles_system_roles_and_roles_of_other_tenants_cannot_be_deleted() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &["role:delete"]).await;
    let higher_role = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let viewer = acme.system_role("viewer").await;
    let manager = acme.system_role("manager").await;
    let other_tenants_role = other.create_role("ops", RoleLevel::Viewer, &[]).await;

    for (client, role, code, reason) in [
        (&ada, &higher_role, Code::PermissionDenied, "LEVEL_TOO_HIGH"),
        (&ada, &manager, Code::PermissionDenied, "SYSTEM_ROLE"),
        (&ada, &viewer, Code::PermissionDenied, "SYSTEM_ROLE"),
        (&acme, &viewer, Code::PermissionDenied, "SYSTEM_ROLE"),
        (&acme, &other_tenants_role, Code::NotFound, "NOT_FOUND"),
        (&acme, &unknown_id(), Code::NotFound, "NOT_FOUND"),
    ] {
        assert_refused(delete(client, role).await, code, reason);
    }
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);
    delete(&platform_admin_in_acme, &viewer)
        .await
        .expect("platform staff may delete a system role");
}
