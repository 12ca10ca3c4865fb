//! Scope and expiry of an assignment.

use serde_json::{Value, json};
use tenantry::proto::v1::{CheckRequest, DecisionReason, ListUsersRequest, RoleLevel};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused, struct_of, wait_until};

async fn decision_reason(admin: &Client, user_id: &str, scope: Value) -> DecisionReason {
    let request = CheckRequest {
        user_id: user_id.into(),
        permission: "doc:read".into(),
        scope: struct_of(scope),
        ..CheckRequest::default()
    };
    admin.decide(request).await.reason()
}

#[tokio::test]
async fn each_assigned_key_must_be_in_the_request_with_an_equal_or_listed_value() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;

    // The assigned scope, the requested scope, and whether the assignment applies.
    let cases = [
        (json!({"p": "a"}), json!({"p": "a"}), true),
        (json!({"p": "a"}), json!({"p": "a", "q": 1}), true),
        (json!({"p": "a"}), json!({"p": "A"}), false),
        (json!({"p": "a"}), json!({"P": "a"}), false),
        (json!({"p": "a"}), json!({}), false),
        (json!({"p": "a"}), json!(null), false),
        (json!({"p": "a"}), json!({"q": "a"}), false),
        (json!({"p": "a", "q": 1}), json!({"p": "a"}), false),
        (json!({"p": "a", "q": 1}), json!({"p": "a", "q": 1}), true),
        (json!({"p": ["a", "b"]}), json!({"p": "b"}), true),
        (json!({"p": ["a", "b"]}), json!({"p": "c"}), false),
        (json!({"p": ["a", "b"]}), json!({"p": ["a", "b"]}), false),
        (json!({"p": "a"}), json!({"p": ["a"]}), false),
        (json!({"p": ["a", 1, true]}), json!({"p": true}), true),
        (json!({"p": 1}), json!({"p": 1.0}), true),
        (json!({"p": 1}), json!({"p": "1"}), false),
        (json!({"p": "1"}), json!({"p": 1}), false),
        (json!({"p": 0.1}), json!({"p": 0.1}), true),
        (json!({"p": 9_007_199_254_740_991_u64}), json!({"p": 9_007_199_254_740_991_u64}), true),
        (json!({"p": 0}), json!({"p": -0.0}), true),
        (json!({"p": true}), json!({"p": "true"}), false),
        (json!({"p": true}), json!({"p": 1}), false),
        (json!({"p": false}), json!({"p": null}), false),
        (json!({"p": ""}), json!({"p": null}), false),
        (json!({"p": "a"}), json!({"p": {"p": "a"}}), false),
        (json!({"é": "日本"}), json!({"é": "日本"}), true),
    ];
    for (index, (assigned, requested, applies)) in cases.into_iter().enumerate() {
        let user = acme.create_user_without_password(&format!("u{index}@acme.test")).await;
        acme.assign_with_scope(&user, &role, assigned.clone()).await;
        let expected =
            if applies { DecisionReason::Granted } else { DecisionReason::ScopeMismatch };
        let actual = decision_reason(&acme, &user, requested.clone()).await;
        assert_eq!(actual, expected, "{assigned} {requested}");
    }
}

#[tokio::test]
async fn an_assignment_without_a_scope_applies_to_every_scope() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let (ada, bob) =
        (acme.create_user("ada@acme.test").await, acme.create_user("bob@acme.test").await);
    acme.assign(&ada, &role).await;
    acme.assign_with_scope(&bob, &role, json!({})).await;

    for user in [&ada, &bob] {
        for scope in [json!(null), json!({}), json!({"p": "a"}), json!({"p": {"deep": [1]}})] {
            assert_eq!(decision_reason(&acme, user, scope).await, DecisionReason::Granted);
        }
    }
}

#[tokio::test]
async fn one_matching_assignment_of_several_grants_the_permission() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let ada = acme.create_user("ada@acme.test").await;
    acme.assign_with_scope(&ada, &role, json!({"p": "a"})).await;
    acme.assign_with_scope(&ada, &role, json!({"p": "b", "q": 1})).await;

    for (scope, applies) in [
        (json!({"p": "a"}), true),
        (json!({"p": "b", "q": 1}), true),
        (json!({"p": "b"}), false),
        (json!({"q": 1}), false),
    ] {
        let granted = decision_reason(&acme, &ada, scope.clone()).await == DecisionReason::Granted;
        assert_eq!(granted, applies, "{scope}");
    }
}

#[tokio::test]
async fn an_assignment_does_not_apply_after_its_expiry() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let ada = acme.create_user("ada@acme.test").await;
    acme.assign_for_an_hour(&ada, &role).await;

    assert_eq!(decision_reason(&acme, &ada, json!(null)).await, DecisionReason::Granted);
    app.expire_assignments(&ada).await;
    let has_expired =
        || async { decision_reason(&acme, &ada, json!(null)).await == DecisionReason::NotGranted };
    wait_until(1, has_expired).await;
}

#[tokio::test]
async fn a_scoped_role_does_not_allow_a_method_call() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let role = acme.create_role("authorizer", RoleLevel::Member, &["user:read"]).await;
    acme.assign_with_scope(&ada.user_id, &role, json!({"p": "a"})).await;

    let result = ada.users().list_users(ListUsersRequest::default()).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}
