//! PermissionService.Check with an explanation.

use serde_json::{Value, json};
use tenantry::proto::v1::{
    CheckRequest, CheckResponse, Consistency, DecisionReason, DisableUserRequest,
    ExplainedAssignment, Explanation, LogoutRequest, RoleLevel, SubjectState, SuspendTenantRequest,
};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused, struct_of, unknown_id};

fn explain_request(user: &str, scope: Value) -> CheckRequest {
    CheckRequest {
        user_id: user.into(),
        permission: "invoice:pay".into(),
        scope: struct_of(scope),
        explain: true,
        ..CheckRequest::default()
    }
}

async fn explain(client: &Client, user: &str, scope: Value) -> (DecisionReason, Explanation) {
    let reply = client.decide(explain_request(user, scope)).await;
    (reply.reason(), reply.explanation.expect("an explanation"))
}

fn role_names(assignments: &[ExplainedAssignment]) -> Vec<&str> {
    assignments.iter().map(|assignment| assignment.role_name.as_str()).collect()
}

#[tokio::test]
async fn the_explanation_of_a_grant_has_the_assignment() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let clerk = acme.create_role("clerk", RoleLevel::Member, &["invoice:*", "doc:read"]).await;
    let reader = acme.create_role("a-reader", RoleLevel::Member, &["invoice:read"]).await;
    acme.assign(&ada, &reader).await;
    let scope = json!({ "team": ["x", "y"] });
    let assignment = acme.assign_with_scope(&ada, &clerk, scope.clone()).await;

    let (reason, explanation) = explain(&acme, &ada, json!({ "team": "y" })).await;
    assert_eq!(reason, DecisionReason::Granted);
    let granted_by = ExplainedAssignment {
        assignment_id: assignment,
        role_id: clerk,
        role_name: "clerk".into(),
        permission: "invoice:*".into(),
        scope: struct_of(scope),
        ..ExplainedAssignment::default()
    };
    let expected = Explanation {
        subject_state: SubjectState::Active.into(),
        granted_by: Some(granted_by),
        ..Explanation::default()
    };
    assert_eq!(explanation, expected);
    let request_without_explanation =
        CheckRequest { explain: false, ..explain_request(&ada, json!({ "team": "y" })) };
    assert_eq!(acme.decide(request_without_explanation).await.explanation, None);
}

#[tokio::test]
async fn the_explanation_of_a_denial_has_the_nearest_misses() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let clerk = acme.create_role("clerk", RoleLevel::Member, &["invoice:pay"]).await;
    let temp = acme.create_role("temp", RoleLevel::Member, &["*:pay"]).await;
    acme.create_role("boss", RoleLevel::Manager, &["invoice:*"]).await;
    acme.create_role("bystander", RoleLevel::Member, &["invoice:read"]).await;
    acme.assign_for_an_hour(&ada, &temp).await;
    app.expire_assignments(&ada).await;
    acme.assign_with_scope(&ada, &clerk, json!({ "p": ["a", 1], "q": true, "r": "z" })).await;
    acme.assign_with_scope(&ada, &clerk, json!({ "p": "b" })).await;

    let (reason, explanation) = explain(&acme, &ada, json!({ "p": "c", "r": "z" })).await;
    assert_eq!(reason, DecisionReason::ScopeMismatch);
    assert_eq!(explanation.subject_state(), SubjectState::Active);
    assert_eq!(explanation.granted_by, None);

    // The assignment with the fewest mismatches is first. A matching key is not listed.
    assert_eq!(role_names(&explanation.out_of_scope), ["clerk", "clerk"]);
    let misses: Vec<_> = explanation.out_of_scope.iter().map(mismatch_rows).collect();
    let nearest_miss = json!([["p", "b", "c"]]);
    let next_miss = json!([["p", [1, "a"], "c"], ["q", true, null]]);
    assert_eq!(misses, [nearest_miss, next_miss]);

    assert_eq!(role_names(&explanation.expired), ["temp"]);
    assert_eq!(explanation.expired[0].permission, "*:pay");
    let expiry = explanation.expired[0].expire_time.expect("an expiry").seconds;
    assert!(expiry <= tenantry::clock::now().unix_timestamp());

    let missing: Vec<_> =
        explanation.missing_roles.iter().map(|r| (&*r.role_name, &*r.permission)).collect();
    assert_eq!(missing, [("boss", "invoice:*"), ("org_admin", "*:*")]);
    assert_eq!(explanation.missing_roles[0].level(), RoleLevel::Manager);
}

/// The mismatches of an assignment as rows of key, assigned value and requested value.
fn mismatch_rows(assignment: &ExplainedAssignment) -> Value {
    let to_json = |value: Option<&prost_types::Value>| {
        // The conversion to JSON takes only whole objects, so the value is put into an object.
        let fields = value.map(|value| ("v".to_owned(), value.clone())).into_iter().collect();
        let object =
            tenantry::proto::json::object("v", &prost_types::Struct { fields }).expect("JSON");
        object.get("v").cloned().unwrap_or_default()
    };
    let rows = assignment.mismatches.iter().map(|mismatch| {
        json!([
            mismatch.key,
            to_json(mismatch.assigned.as_ref()),
            to_json(mismatch.requested.as_ref())
        ])
    });
    Value::Array(rows.collect())
}

#[tokio::test]
async fn at_most_the_ten_nearest_misses_of_each_kind_are_listed() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("held", RoleLevel::Member, &["invoice:pay"]).await;
    for n in 0..12 {
        acme.assign_with_scope(&ada, &role, json!({ "n": n })).await;
        acme.create_role(&format!("role-{n:02}"), RoleLevel::Viewer, &["invoice:pay"]).await;
    }

    let (_, explanation) = explain(&acme, &ada, json!({})).await;
    assert_eq!(explanation.out_of_scope.len(), 10);
    let missing: Vec<_> =
        explanation.missing_roles.iter().map(|role| role.role_name.clone()).collect();
    assert_eq!(missing, (0..10).map(|n| format!("role-{n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_explanation_has_the_state_of_the_subject() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let platform_admin = app.platform_admin().await;
    let disabled_user = acme.create_member("ada", &["invoice:pay"]).await.user_id;
    let request = DisableUserRequest { user_id: disabled_user.clone() };
    acme.users().disable_user(request).await.expect("disabled");

    let states = async |client: &Client| {
        let mut states = Vec::new();
        for user in [&acme.user_id, &disabled_user, &other.user_id, &unknown_id()] {
            let (reason, explanation) = explain(client, user, json!(null)).await;
            states.push((reason, explanation.subject_state()));
        }
        states
    };
    let unknown_result = (DecisionReason::NotGranted, SubjectState::Unknown);
    let mut expected = [
        (DecisionReason::Granted, SubjectState::Active),
        (DecisionReason::SubjectDisabled, SubjectState::Disabled),
        unknown_result,
        unknown_result,
    ];
    assert_eq!(states(&acme).await, expected);

    let request = SuspendTenantRequest { tenant: acme.tenant_id.clone() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    expected = [(DecisionReason::NotGranted, SubjectState::TenantSuspended); 4];
    assert_eq!(
        states(&platform_admin.with_metadata("x-tenant-id", &acme.tenant_id)).await,
        expected
    );
}

#[tokio::test]
async fn missing_roles_are_listed_only_for_callers_that_may_read_roles() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let clerk = acme.create_role("clerk", RoleLevel::Member, &["invoice:pay"]).await;
    acme.assign_with_scope(&ada.user_id, &clerk, json!({ "p": "a" })).await;
    acme.create_role("boss", RoleLevel::Manager, &["invoice:*"]).await;
    let service = acme.create_member("service", &["permission:check"]).await;
    let auditor = acme.create_member("auditor", &["permission:check", "role:read"]).await;

    // The auditor sees two missing roles: `boss` and `org_admin`.
    for (client, user, missing_roles) in
        [(&ada, "", 0), (&service, &*ada.user_id, 0), (&auditor, &*ada.user_id, 2)]
    {
        let (_, explanation) = explain(client, user, json!(null)).await;
        assert_eq!(
            role_names(&explanation.out_of_scope),
            ["clerk"],
            "the subject's own assignment"
        );
        assert_eq!(explanation.missing_roles.len(), missing_roles);
    }
    let result = ada.permissions().check(explain_request(&acme.user_id, json!(null))).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_check_by_token_is_explained_unless_the_token_is_inactive() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["invoice:pay"]).await;
    let request = CheckRequest {
        access_token: ada.tokens.access_token.clone(),
        ..explain_request("", json!(null))
    };

    let granted = acme.decide(request.clone()).await;
    assert!(granted.allowed);
    let granted_by =
        granted.explanation.expect("an explanation").granted_by.expect("an assignment");
    assert_eq!(granted_by.role_name, "ada");
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let denied = acme.decide(request).await;
    assert_eq!((denied.reason(), denied.explanation), (DecisionReason::TokenInvalid, None));
}

/// An explanation is as current as a fully consistent decision, and never contradicts the
/// decision in the same reply.
#[tokio::test]
async fn an_explanation_agrees_with_its_decision_and_with_a_fully_consistent_decision() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let replica_client = acme.on_server(&second_replica.channel);
    let ada = acme.create_user("ada@acme.test").await;
    let clerk = acme.create_role("clerk", RoleLevel::Member, &["invoice:pay"]).await;

    let assert_consistent = async |reply: CheckResponse, allowed: bool| {
        assert_eq!(reply.allowed, allowed);
        let explanation = reply.explanation.expect("an explanation");
        assert_eq!(explanation.granted_by.is_some(), allowed, "{explanation:?}");
        let request = CheckRequest {
            explain: false,
            consistency: Consistency::FullyConsistent.into(),
            ..explain_request(&ada, json!({ "p": 1 }))
        };
        assert_eq!(replica_client.decide(request).await.reason, reply.reason);
    };
    for scope in [json!({ "p": 1 }), json!({ "p": 2 }), json!({ "p": [1, 2] }), json!({})] {
        let request = explain_request(&ada, json!({ "p": 1 }));
        assert_consistent(replica_client.decide(request.clone()).await, false).await;
        acme.assign_with_scope(&ada, &clerk, scope.clone()).await;
        let expected = scope != json!({ "p": 2 });
        assert_consistent(replica_client.decide(request.clone()).await, expected).await;
        acme.unassign(&ada, &clerk).await;
        assert_consistent(replica_client.decide(request).await, false).await;
    }
}
