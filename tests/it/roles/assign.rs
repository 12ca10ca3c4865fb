//! RoleService.AssignRole

use serde_json::{Value, json};
use tenantry::{
    clock,
    proto::v1::{AssignRoleRequest, AssignRoleResponse, RoleLevel},
};
use time::Duration;
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, assert_refused, struct_of, unknown_id};

type AssignResult = Result<Response<AssignRoleResponse>, Status>;

async fn assign(client: &Client, user: &str, role: &str, scope: Value) -> AssignResult {
    let request = AssignRoleRequest {
        user_id: user.into(),
        role_id: role.into(),
        scope: struct_of(scope),
        ..AssignRoleRequest::default()
    };
    client.roles().assign_role(request).await
}

#[tokio::test]
async fn an_assignment_is_returned_as_requested() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let request = AssignRoleRequest {
        user_id: ada.clone(),
        role_id: role.clone(),
        scope: struct_of(json!({ "p": [true, 1, "x"], "q": "y" })),
        expire_time: Some(clock::timestamp(clock::now() + Duration::hours(1))),
        ..AssignRoleRequest::default()
    };

    let reply = acme.roles().assign_role(request.clone()).await.expect("assigned");
    let assignment = reply.into_inner().role_assignment.expect("the assignment");
    assert_eq!(
        (assignment.user_id, assignment.role_id, assignment.role_name),
        (ada, role, "ops".into())
    );
    assert_eq!((assignment.tenant_id, assignment.scope), (acme.tenant_id, request.scope));
    let seconds = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
    assert_eq!(seconds(assignment.expire_time), seconds(request.expire_time));
    assert!(assignment.create_time.is_some());
}

/// F04: an assignment with a scope is refused like one without a scope.
#[tokio::test]
async fn a_caller_cannot_assign_unheld_rights_or_change_a_user_of_a_higher_level() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:assign", "doc:read"]).await;
    let bob = acme.create_user("bob@acme.test").await;
    let boss = acme.create_user("boss@acme.test").await;
    let held_role = acme.create_role("held", RoleLevel::Member, &["doc:read"]).await;
    let larger_role =
        acme.create_role("larger", RoleLevel::Member, &["doc:read", "doc:write"]).await;
    let higher_role = acme.create_role("higher", RoleLevel::Manager, &[]).await;
    let admin_role = acme.system_role("org_admin").await;
    acme.assign_with_scope(&boss, &higher_role, json!({ "p": "x" })).await;

    for (user, role, reason) in [
        (&bob, &larger_role, "GRANT_NOT_HELD"),
        (&ada.user_id, &larger_role, "GRANT_NOT_HELD"),
        (&bob, &higher_role, "LEVEL_TOO_HIGH"),
        (&ada.user_id, &higher_role, "LEVEL_TOO_HIGH"),
        (&ada.user_id, &admin_role, "LEVEL_TOO_HIGH"),
        (&boss, &held_role, "LEVEL_TOO_HIGH"),
    ] {
        let result = assign(&ada, user, role, json!(null)).await;
        assert_refused(result, Code::PermissionDenied, reason);
        let scoped_result = assign(&ada, user, role, json!({ "p": "x" })).await;
        assert_refused(scoped_result, Code::PermissionDenied, reason);
    }
    assign(&ada, &bob, &held_role, json!(null)).await.expect("a held role can be assigned");
}

#[tokio::test]
async fn a_role_is_assigned_only_once_with_the_same_scope() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;

    for scope in [json!(null), json!({"p": "1"}), json!({"p": 1}), json!({"p": "1", "q": 2})] {
        assign(&acme, &ada, &role, scope.clone()).await.expect("assigned");
        let result = assign(&acme, &ada, &role, scope).await;
        assert_refused(result, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    }
    let result = assign(&acme, &ada, &role, json!({"q": 2.0, "p": "1"})).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    let result = assign(&acme, &ada, &role, json!({})).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
}

/// N03: the order and the repetition of values make no difference.
#[tokio::test]
async fn equal_scopes_have_one_normal_form() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let normal_form = json!({"p": [false, -1, 1.5, 10, "Z", "a", "é"], "q": "x"});

    let scope = json!({"q": ["x"], "p": ["é", 10, "a", 1.5, "Z", 10, -1, false, "a"]});
    let reply = assign(&acme, &ada, &role, scope.clone()).await.expect("assigned");
    let assignment = reply.into_inner().role_assignment.expect("the assignment");
    assert_eq!(assignment.scope, struct_of(normal_form.clone()));
    for equal_scope in
        [scope, normal_form, json!({"p": ["Z", "a", "é", 10.0, 1.5, -1, false], "q": "x"})]
    {
        let result = assign(&acme, &ada, &role, equal_scope).await;
        assert_refused(result, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    }
    for other_scope in
        [json!({"p": [10, "a"], "q": "x"}), json!({"p": ["1", "x"]}), json!({"q": "x"})]
    {
        assign(&acme, &ada, &role, other_scope).await.expect("a different scope is assigned");
    }
}

#[tokio::test]
async fn an_assignment_replaces_an_expired_one() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_for_an_hour(&ada, &role).await;

    let result = assign(&acme, &ada, &role, json!(null)).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    app.expire_assignments(&ada).await;
    assert!(!acme.user_may(&ada, "doc:read").await);
    assign(&acme, &ada, &role, json!(null)).await.expect("assigned");
    assert!(acme.user_may(&ada, "doc:read").await);
}

/// D08: no assignment is stored.
#[tokio::test]
async fn another_tenants_users_and_roles_look_like_unknown_ones() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let their_role = a.create_role("ops", RoleLevel::Viewer, &[]).await;
    let our_role = b.create_role("ops", RoleLevel::Viewer, &[]).await;

    for (user, role) in [
        (&b.user_id, &their_role),
        (&a.user_id, &our_role),
        (&a.user_id, &their_role),
        (&unknown_id(), &our_role),
        (&b.user_id, &unknown_id()),
    ] {
        let result = assign(&b, user, role, json!(null)).await;
        assert_refused(result, Code::NotFound, "NOT_FOUND");
    }
    let sql = "select count(*) from role_assignments where user_id = $1";
    assert_eq!(app.count(sql, &a.user_id).await, 1);
    assert_eq!(app.count(sql, &b.user_id).await, 1);
}

#[tokio::test]
async fn malformed_scopes_and_past_times_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    // A scope has at most 50 keys of at most 100 characters, and texts of at most 1000
    // characters.
    let fields: serde_json::Map<_, _> = (0..51).map(|n| (format!("k{n}"), json!(1))).collect();

    for scope in [
        json!({ "p": null }),
        json!({ "p": [] }),
        json!({ "p": [[1]] }),
        json!({ "p": [null] }),
        json!({ "p": { "q": 1 } }),
        json!({ "": 1 }),
        json!({ "k".repeat(101): 1 }),
        json!({ "p": "x".repeat(1001) }),
        json!({ "p\0": 1 }),
        json!({ "p": "x\0" }),
        json!({ "p": ["x\0"] }),
        Value::Object(fields),
    ] {
        let result = assign(&acme, &acme.user_id, &role, scope).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let timestamp = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    let past = clock::timestamp(clock::now() - Duration::seconds(1));
    for time in [
        past,
        timestamp(0, 0),
        timestamp(i64::MAX, 0),
        timestamp(i64::MIN, 0),
        timestamp(4_000_000_000, -1),
    ] {
        let request = AssignRoleRequest {
            user_id: acme.user_id.clone(),
            role_id: role.clone(),
            expire_time: Some(time),
            ..AssignRoleRequest::default()
        };
        let result = acme.roles().assign_role(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
