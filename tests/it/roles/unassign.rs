//! RoleService.UnassignRole

use serde_json::{Value, json};
use tenantry::proto::v1::{RoleLevel, UnassignRoleRequest, UnassignRoleResponse};
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused, struct_of, unknown_id};

fn every(user: &str, role: &str, all_scopes: bool) -> UnassignRoleRequest {
    UnassignRoleRequest { user_id: user.into(), role_id: role.into(), scope: None, all_scopes }
}

type Taken = Result<Response<UnassignRoleResponse>, Status>;

async fn unassign(client: &Client, user: &str, role: &str, scope: Value) -> Taken {
    let request = UnassignRoleRequest { scope: struct_of(scope), ..every(user, role, false) };
    client.roles().unassign_role(request).await
}

const ASSIGNMENTS: &str = "select count(*) from role_assignments where user_id = $1";

/// N03: equal scopes have one stored form.
#[tokio::test]
async fn it_removes_the_assignment_with_exactly_this_scope_or_all() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    acme.assign(&ada, &role).await;
    for scope in [json!({"p": "x"}), json!({"p": 1}), json!({"p": "x", "q": 1})] {
        acme.assign_within(&ada, &role, scope).await;
    }

    unassign(&acme, &ada, &role, json!({"p": "x"})).await.expect("taken");
    assert_eq!(app.count(ASSIGNMENTS, &ada).await, 3);
    let again = unassign(&acme, &ada, &role, json!({"p": "x"})).await;
    refused(again, Code::NotFound, "NOT_FOUND");
    unassign(&acme, &ada, &role, json!({"q": 1.0, "p": "x"})).await.expect("taken");
    for unscoped in [json!(null), json!({})] {
        assert_eq!(app.count(ASSIGNMENTS, &ada).await, 2, "{unscoped}");
        unassign(&acme, &ada, &role, unscoped.clone()).await.expect("taken");
        let again = unassign(&acme, &ada, &role, unscoped).await;
        refused(again, Code::NotFound, "NOT_FOUND");
        assert_eq!(app.count(ASSIGNMENTS, &ada).await, 1, "the scoped assignment stays");
        acme.assign(&ada, &role).await;
    }
    for scope in [json!({}), json!({"p": 1})] {
        let both = UnassignRoleRequest { scope: struct_of(scope), ..every(&ada, &role, true) };
        let both = acme.roles().unassign_role(both).await;
        refused(both, Code::InvalidArgument, "INVALID_FIELDS");
    }
    assert_eq!(app.count(ASSIGNMENTS, &ada).await, 2);
    acme.roles().unassign_role(every(&ada, &role, true)).await.expect("taken");
    assert_eq!(app.count(ASSIGNMENTS, &ada).await, 0);
    let again = acme.roles().unassign_role(every(&ada, &role, true)).await;
    refused(again, Code::NotFound, "NOT_FOUND");
}

/// N03: equal scopes have one stored form.
#[tokio::test]
async fn a_scope_is_recognized_in_every_equal_form() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    for (given, named) in [
        (json!({"p": ["b", 1, "a"]}), json!({"p": ["a", "b", 1.0, "a"]})),
        (json!({"p": ["x"]}), json!({"p": "x"})),
        (json!({"p": "x"}), json!({"p": ["x", "x"]})),
        (json!({"p": 0.1, "q": true}), json!({"q": [true], "p": [0.1]})),
    ] {
        acme.assign_within(&ada, &role, given).await;
        unassign(&acme, &ada, &role, named).await.expect("taken");
        assert_eq!(app.count(ASSIGNMENTS, &ada).await, 0);
    }
}

/// F04: a caller cannot change anything above its own rights.
#[tokio::test]
async fn nothing_is_unassigned_from_a_user_or_of_a_role_above_the_caller() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["role:assign"]).await;
    let low = acme.create_role("low", RoleLevel::Viewer, &[]).await;
    let high = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let boss = acme.create_user("boss@acme.test").await;
    acme.assign(&boss, &low).await;
    acme.assign(&boss, &high).await;

    for role in [&low, &high] {
        let result = unassign(&ada, &boss, role, json!(null)).await;
        refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    }
    assert_eq!(app.count(ASSIGNMENTS, &boss).await, 2);
    acme.unassign(&boss, &high).await;
    unassign(&ada, &boss, &low, json!(null)).await.expect("taken");
}

/// D08: an object of another tenant gets the same answer as an unknown object.
#[tokio::test]
async fn another_tenants_assignment_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
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
        refused(unassign(&b, user, role, json!(null)).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(app.count(ASSIGNMENTS, &a.user_id).await, 1);
}
