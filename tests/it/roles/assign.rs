//! RoleService.AssignRole

use serde_json::{Value, json};
use tenantry::{
    clock,
    proto::v1::{AssignRoleRequest, AssignRoleResponse, RoleLevel},
};
use time::Duration;
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused, struct_of, unknown_id};

type Assigned = Result<Response<AssignRoleResponse>, Status>;

async fn assign(client: &Client, user: &str, role: &str, scope: Value) -> Assigned {
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
    let acme = app.tenant("acme").await;
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
    let made = reply.into_inner().role_assignment.expect("the assignment");
    assert_eq!((made.user_id, made.role_id, made.role_name), (ada, role, "ops".into()));
    assert_eq!((made.tenant_id, made.scope), (acme.tenant_id, request.scope));
    let seconds = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
    assert_eq!(seconds(made.expire_time), seconds(request.expire_time));
    assert!(made.create_time.is_some());
}

/// F04: a caller cannot change anything above its own rights.
#[tokio::test]
async fn nobody_assigns_what_it_does_not_hold_or_to_a_user_above_it() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["role:assign", "doc:read"]).await;
    let bob = acme.create_user("bob@acme.test").await;
    let boss = acme.create_user("boss@acme.test").await;
    let own = acme.create_role("own", RoleLevel::Member, &["doc:read"]).await;
    let more = acme.create_role("more", RoleLevel::Member, &["doc:read", "doc:write"]).await;
    let high = acme.create_role("high", RoleLevel::Manager, &[]).await;
    let admin = acme.system_role("org_admin").await;
    acme.assign_within(&boss, &high, json!({ "p": "x" })).await;

    for (user, role, reason) in [
        (&bob, &more, "GRANT_NOT_HELD"),
        (&ada.user_id, &more, "GRANT_NOT_HELD"),
        (&bob, &high, "LEVEL_TOO_HIGH"),
        (&ada.user_id, &high, "LEVEL_TOO_HIGH"),
        (&ada.user_id, &admin, "LEVEL_TOO_HIGH"),
        (&boss, &own, "LEVEL_TOO_HIGH"),
    ] {
        let result = assign(&ada, user, role, json!(null)).await;
        refused(result, Code::PermissionDenied, reason);
        let scoped = assign(&ada, user, role, json!({ "p": "x" })).await;
        refused(scoped, Code::PermissionDenied, reason);
    }
    assign(&ada, &bob, &own, json!(null)).await.expect("a held role can be assigned");
}

#[tokio::test]
async fn a_role_is_assigned_only_once_with_the_same_scope() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;

    for scope in [json!(null), json!({"p": "1"}), json!({"p": 1}), json!({"p": "1", "q": 2})] {
        assign(&acme, &ada, &role, scope.clone()).await.expect("assigned");
        let again = assign(&acme, &ada, &role, scope).await;
        refused(again, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    }
    let reordered = assign(&acme, &ada, &role, json!({"q": 2.0, "p": "1"})).await;
    refused(reordered, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    let empty = assign(&acme, &ada, &role, json!({})).await;
    refused(empty, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
}

/// N03: equal scopes have one stored form.
#[tokio::test]
async fn equal_scopes_have_one_normal_form() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let normal_form = json!({"p": [false, -1, 1.5, 10, "Z", "a", "é"], "q": "x"});

    let first = json!({"q": ["x"], "p": ["é", 10, "a", 1.5, "Z", 10, -1, false, "a"]});
    let reply = assign(&acme, &ada, &role, first.clone()).await.expect("assigned");
    let made = reply.into_inner().role_assignment.expect("the assignment");
    assert_eq!(made.scope, struct_of(normal_form.clone()));
    for same in [first, normal_form, json!({"p": ["Z", "a", "é", 10.0, 1.5, -1, false], "q": "x"})]
    {
        let again = assign(&acme, &ada, &role, same).await;
        refused(again, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    }
    for other in [json!({"p": [10, "a"], "q": "x"}), json!({"p": ["1", "x"]}), json!({"q": "x"})] {
        assign(&acme, &ada, &role, other).await.expect("another scope");
    }
}

#[tokio::test]
async fn an_assignment_replaces_an_expired_one() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_for_an_hour(&ada, &role).await;

    let early = assign(&acme, &ada, &role, json!(null)).await;
    refused(early, Code::AlreadyExists, "ROLE_ALREADY_ASSIGNED");
    app.let_expire(&ada).await;
    assert!(!acme.may(&ada, "doc:read").await);
    assign(&acme, &ada, &role, json!(null)).await.expect("assigned");
    assert!(acme.may(&ada, "doc:read").await);
}

/// D08: an object of another tenant gets the same answer as an unknown object.
#[tokio::test]
async fn another_tenants_users_and_roles_look_like_unknown_ones() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
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
        refused(result, Code::NotFound, "NOT_FOUND");
    }
    let sql = "select count(*) from role_assignments where user_id = $1";
    assert_eq!(app.count(sql, &a.user_id).await, 1);
    assert_eq!(app.count(sql, &b.user_id).await, 1);
}

#[tokio::test]
async fn malformed_scopes_and_past_times_are_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &[]).await;
    let many: serde_json::Map<_, _> = (0..51).map(|at| (format!("k{at}"), json!(1))).collect();

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
        Value::Object(many),
    ] {
        let result = assign(&acme, &acme.user_id, &role, scope).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let at = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    let past = clock::timestamp(clock::now() - Duration::seconds(1));
    for time in [past, at(0, 0), at(i64::MAX, 0), at(i64::MIN, 0), at(4_000_000_000, -1)] {
        let request = AssignRoleRequest {
            user_id: acme.user_id.clone(),
            role_id: role.clone(),
            expire_time: Some(time),
            ..AssignRoleRequest::default()
        };
        let result = acme.roles().assign_role(request).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
