//! RoleService.UnassignRole

use serde_json::{Value, json};
use tenantry::proto::v1::{RoleLevel, UnassignRoleRequest, UnassignRoleResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, assert_refused, struct_of, unknown_id};

fn unassign_request(user: &str, role: &str, all_scopes: bool) -> UnassignRoleRequest {
    UnassignRoleRequest { user_id: user.into(), role_id: role.into(), scope: None, all_scopes }
}

type UnassignResult = Result<Response<UnassignRoleResponse>, Status>;

async fn unassign(client: &Client, user: &str, role: &str, scope: Value) -> UnassignResult {
    let request =
        UnassignRoleRequest { scope: struct_of(scope), ..unassign_request(user, role, false) };
    client.roles().unassign_role(request).await
}

const COUNT_ASSIGNMENTS: &str = "select count(*) from role_assignments where user_id = $1";

/// N03: an empty scope means the assignment without a scope. `all_scopes` means all.
#[tokio::test]
async fn an_unassignment_removes_the_assignment_with_the_given_scope_or_all() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    acme.assign(&ada, &role).await;
    for scope in [json!({"p": "x"}), json!({"p": 1}), json!({"p": "x", "q": 1})] {
        acme.assign_with_scope(&ada, &role, scope).await;
    }

    unassign(&acme, &ada, &role, json!({"p": "x"})).await.expect("unassigned");
    assert_eq!(app.count(COUNT_ASSIGNMENTS, &ada).await, 3);
    let result = unassign(&acme, &ada, &role, json!({"p": "x"})).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    unassign(&acme, &ada, &role, json!({"q": 1.0, "p": "x"})).await.expect("unassigned");
    for unscoped in [json!(null), json!({})] {
        assert_eq!(app.count(COUNT_ASSIGNMENTS, &ada).await, 2, "{unscoped}");
        unassign(&acme, &ada, &role, unscoped.clone()).await.expect("unassigned");
        let result = unassign(&acme, &ada, &role, unscoped).await;
        assert_refused(result, Code::NotFound, "NOT_FOUND");
        assert_eq!(app.count(COUNT_ASSIGNMENTS, &ada).await, 1, "the scoped assignment stays");
        acme.assign(&ada, &role).await;
    }
    // A request may contain either a scope or `all_scopes`, not both.
    for scope in [json!({}), json!({"p": 1})] {
        let request =
            UnassignRoleRequest { scope: struct_of(scope), ..unassign_request(&ada, &role, true) };
        let result = acme.roles().unassign_role(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    assert_eq!(app.count(COUNT_ASSIGNMENTS, &ada).await, 2);
    acme.roles().unassign_role(unassign_request(&ada, &role, true)).await.expect("unassigned");
    assert_eq!(app.count(COUNT_ASSIGNMENTS, &ada).await, 0);
    let result = acme.roles().unassign_role(unassign_request(&ada, &role, true)).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
}

/// N03: an unassignment finds the assignment with an equal scope.
#[tokio::test]
async fn a_scope_is_recognized_in_every_equal_form() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    for (assigned_scope, requested_scope) in [
        (json!({"p": ["b", 1, "a"]}), json!({"p": ["a", "b", 1.0, "a"]})),
        (json!({"p": ["x"]}), json!({"p": "x"})),
        (json!({"p": "x"}), json!({"p": ["x", "x"]})),
        (json!({"p": 0.1, "q": true}), json!({"q": [true], "p": [0.1]})),
    ] {
        acme.assign_with_scope(&ada, &role, assigned_scope).await;
        unassign(&acme, &ada, &role, requested_scope).await.expect("unassigned");
        assert_eq!(app.count(COUNT_ASSIGNMENTS, &ada).await, 0);
    }
}

/// F04: the level of the user decides, not the level of the role.
#[tokio::test]
async fn a_caller_cannot_unassign_any_role_from_a_user_of_a_higher_level() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:assign"]).await;
    let lower_role = acme.create_role("low", RoleLevel::Viewer, &[]).await;
    let higher_role = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let boss = acme.create_user("boss@acme.test").await;
    acme.assign(&boss, &lower_role).await;
    acme.assign(&boss, &higher_role).await;

    for role in [&lower_role, &higher_role] {
        let result = unassign(&ada, &boss, role, json!(null)).await;
        assert_refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    }
    assert_eq!(app.count(COUNT_ASSIGNMENTS, &boss).await, 2);
    acme.unassign(&boss, &higher_role).await;
    unassign(&ada, &boss, &lower_role, json!(null)).await.expect("unassigned");
}

/// D08: the assignment stays.
#[tokio::test]
async fn another_tenants_assignment_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let other_tenants_role = a.system_role("org_admin").await;
    let own_role = b.system_role("viewer").await;

    for (user, role) in [
        (&a.user_id, &other_tenants_role),
        (&b.user_id, &other_tenants_role),
        (&a.user_id, &own_role),
        (&b.user_id, &own_role),
        (&unknown_id(), &own_role),
        (&b.user_id, &unknown_id()),
    ] {
        assert_refused(unassign(&b, user, role, json!(null)).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(app.count(COUNT_ASSIGNMENTS, &a.user_id).await, 1);
}
