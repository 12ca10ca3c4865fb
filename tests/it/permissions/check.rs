//! PermissionService.Check

use tenantry::proto::v1::{
    CheckRequest, Consistency, DecisionReason, DisableUserRequest, RoleLevel, UpdateRoleRequest,
};
use tonic::Code;

use crate::harness::{TestApp, assert_refused, struct_of, unknown_id};

fn check_request(user_id: &str, permission: &str) -> CheckRequest {
    CheckRequest {
        user_id: user_id.into(),
        permission: permission.into(),
        ..CheckRequest::default()
    }
}

#[tokio::test]
async fn a_user_may_check_only_itself() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;

    for user_id in ["", &ada.user_id] {
        let granted = ada.decide(check_request(user_id, "doc:read")).await;
        assert!(granted.allowed);
        assert_eq!(granted.reason(), DecisionReason::Granted);
        let denied = ada.decide(check_request(user_id, "doc:write")).await;
        assert!(!denied.allowed);
        assert_eq!(denied.reason(), DecisionReason::NotGranted);
        assert!(!denied.decision_id.is_empty() && denied.decision_id != granted.decision_id);
    }
    for user_id in [acme.user_id.clone(), unknown_id()] {
        let result = ada.permissions().check(check_request(&user_id, "doc:read")).await;
        assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}

#[tokio::test]
async fn with_the_permission_a_caller_checks_any_user() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let service = acme.create_member("service", &["permission:check"]).await;

    assert!(service.user_may(&ada.user_id, "doc:read").await);
    assert!(!service.user_may(&ada.user_id, "doc:write").await);
    assert!(!service.may("doc:read").await, "an empty id means the caller");
    assert!(service.may("permission:check").await);
}

/// F19: the response does not reveal whether a user of another tenant exists.
#[tokio::test]
async fn an_unknown_user_and_another_tenants_user_get_the_same_denial() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);

    for user_id in [unknown_id(), a.user_id.clone()] {
        for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent] {
            for explain in [false, true] {
                let request = CheckRequest {
                    consistency: consistency.into(),
                    explain,
                    ..check_request(&user_id, "doc:read")
                };
                let denied = b.decide(request).await;
                assert!(!denied.allowed);
                assert_eq!(denied.reason(), DecisionReason::NotGranted);
            }
        }
    }
}

/// F19: an unknown tenant gets NOT_FOUND or PERMISSION_DENIED.
#[tokio::test]
async fn a_check_in_an_unknown_tenant_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let unknown_tenant = unknown_id();

    let request = check_request(&acme.user_id, "doc:read");
    let result = platform_admin
        .with_metadata("x-tenant-id", &unknown_tenant)
        .permissions()
        .check(request.clone())
        .await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    let result =
        acme.with_metadata("x-tenant-id", &unknown_tenant).permissions().check(request).await;
    assert_refused(result, Code::PermissionDenied, "TENANT_MISMATCH");
}

#[tokio::test]
async fn a_disabled_user_is_denied() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let request = DisableUserRequest { user_id: ada.user_id.clone() };
    acme.users().disable_user(request).await.expect("disabled");

    let denied = acme.decide(check_request(&ada.user_id, "doc:read")).await;
    assert!(!denied.allowed);
    assert_eq!(denied.reason(), DecisionReason::SubjectDisabled);
}

/// F02: the permission in a request must not contain a wildcard or an invalid character.
#[tokio::test]
async fn only_a_concrete_permission_can_be_checked() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let long = format!("{}:read", "a".repeat(1024));

    for malformed in [
        "",
        "users",
        "users:",
        ":read",
        "Users:READ",
        "users:read:x",
        "users:re*d",
        "*",
        "*:*",
        "users:*",
        "*:read",
        "users:read\0",
        // With a full-width colon.
        "users：read",
        " users:read",
        "users:read\n",
        &long,
    ] {
        let result = acme.permissions().check(check_request("", malformed)).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let result = acme.permissions().check(check_request("not-an-id", "users:read")).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}

/// F03: a wildcard stands for the whole resource or the whole action.
#[tokio::test]
async fn a_wildcard_covers_exactly_one_whole_part() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["users:*", "*:read", "a.b:c"]).await;

    for (permission, allowed) in [
        ("users:read", true),
        ("users:delete", true),
        ("invoices:read", true),
        ("users_archive:delete", false),
        ("user:delete", false),
        ("xusers:delete", false),
        ("invoices:read.all", false),
        ("invoices:reads", false),
        ("a.b:c", true),
        ("a:b.c", false),
        ("a.b.c:c", false),
        ("axb:c", false),
    ] {
        assert_eq!(acme.user_may(&ada.user_id, permission).await, allowed, "{permission}");
    }
}

/// F10: the replica that acknowledged a change applies the change to its next decision.
#[tokio::test]
async fn a_change_applies_as_soon_as_it_is_acknowledged() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;

    for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent] {
        let request =
            CheckRequest { consistency: consistency.into(), ..check_request(&ada, "doc:read") };
        assert!(!acme.decide(request.clone()).await.allowed);
        acme.assign(&ada, &role).await;
        assert!(acme.decide(request.clone()).await.allowed);
        acme.unassign(&ada, &role).await;
        assert!(!acme.decide(request).await.allowed);
    }
    acme.assign(&ada, &role).await;
    let request = UpdateRoleRequest {
        role_id: role,
        permissions: vec!["doc:write".into()],
        ..UpdateRoleRequest::default()
    };
    acme.roles().update_role(request).await.expect("updated");
    assert!(!acme.user_may(&ada, "doc:read").await);
    assert!(acme.user_may(&ada, "doc:write").await);
}

/// F16: requests whose texts join to the same string do not share a cache entry.
#[tokio::test]
async fn similar_requests_get_separate_decisions() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let role = a.create_role("r", RoleLevel::Member, &["a.b:c"]).await;
    let (ada, bob) = (a.create_user("ada@a.test").await, a.create_user("bob@a.test").await);
    a.assign_with_scope(&ada, &role, serde_json::json!({"x:y": "z", "n": 1})).await;
    let role_in_b = b.create_role("r", RoleLevel::Member, &["a.b:c"]).await;
    let same_email_in_b = b.create_user("ada@a.test").await;
    b.assign(&same_email_in_b, &role_in_b).await;

    let request = |user: &str, permission: &str, scope| CheckRequest {
        scope: struct_of(scope),
        ..check_request(user, permission)
    };
    let matching_scope = serde_json::json!({"x:y": "z", "n": 1});
    // In the second round, the decisions may come from the cache.
    for round in 0..2 {
        assert!(a.decide(request(&ada, "a.b:c", matching_scope.clone())).await.allowed, "{round}");
        for (user, permission, scope) in [
            (&bob, "a.b:c", matching_scope.clone()),
            (&same_email_in_b, "a.b:c", matching_scope.clone()),
            (&ada, "a:b.c", matching_scope.clone()),
            (&ada, "a.b:c", serde_json::json!({"x": "y:z", "n": 1})),
            (&ada, "a.b:c", serde_json::json!({"x:y": "z", "n": "1"})),
            (&ada, "a.b:c", serde_json::json!({"x:y:z": "", "n": 1})),
            (&ada, "a.b:c", serde_json::json!({"x:y": "z"})),
        ] {
            let denied = a.decide(request(user, permission, scope.clone())).await;
            assert!(!denied.allowed, "{round}: {user} {permission} {scope}");
        }
    }
}
