//! PermissionService.Check

use tenantry::proto::v1::{
    CheckRequest, Consistency, DecisionReason, DisableUserRequest, RoleLevel, UpdateRoleRequest,
};
use tonic::Code;

use crate::harness::{TestApp, refused, struct_of, unknown_id};

fn ask(user_id: &str, permission: &str) -> CheckRequest {
    CheckRequest {
        user_id: user_id.into(),
        permission: permission.into(),
        ..CheckRequest::default()
    }
}

#[tokio::test]
async fn a_user_may_check_only_itself() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["doc:read"]).await;

    for own in ["", &ada.user_id] {
        let yes = ada.decide(ask(own, "doc:read")).await;
        assert!(yes.allowed);
        assert_eq!(yes.reason(), DecisionReason::Granted);
        let no = ada.decide(ask(own, "doc:write")).await;
        assert!(!no.allowed);
        assert_eq!(no.reason(), DecisionReason::NotGranted);
        assert!(!no.decision_id.is_empty() && no.decision_id != yes.decision_id);
    }
    for other in [acme.user_id.clone(), unknown_id()] {
        let result = ada.permissions().check(ask(&other, "doc:read")).await;
        refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}

#[tokio::test]
async fn with_the_permission_a_caller_checks_any_user() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["doc:read"]).await;
    let service = acme.member("service", &["permission:check"]).await;

    assert!(service.may(&ada.user_id, "doc:read").await);
    assert!(!service.may(&ada.user_id, "doc:write").await);
    assert!(!service.may("", "doc:read").await, "an empty id means the caller");
    assert!(service.may("", "permission:check").await);
}

/// F19
#[tokio::test]
async fn an_unknown_user_is_denied_like_one_of_another_tenant() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);

    for stranger in [unknown_id(), a.user_id.clone()] {
        for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent] {
            for explain in [false, true] {
                let question = CheckRequest {
                    consistency: consistency.into(),
                    explain,
                    ..ask(&stranger, "doc:read")
                };
                let no = b.decide(question).await;
                assert!(!no.allowed);
                assert_eq!(no.reason(), DecisionReason::NotGranted);
            }
        }
    }
}

/// F19
#[tokio::test]
async fn a_check_in_an_unknown_tenant_is_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    let nowhere = unknown_id();

    let question = ask(&acme.user_id, "doc:read");
    let result = root.with("x-tenant-id", &nowhere).permissions().check(question.clone()).await;
    refused(result, Code::NotFound, "NOT_FOUND");
    let result = acme.with("x-tenant-id", &nowhere).permissions().check(question).await;
    refused(result, Code::PermissionDenied, "TENANT_MISMATCH");
}

#[tokio::test]
async fn a_disabled_user_is_denied() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["doc:read"]).await;
    let request = DisableUserRequest { user_id: ada.user_id.clone() };
    acme.users().disable_user(request).await.expect("disabled");

    let no = acme.decide(ask(&ada.user_id, "doc:read")).await;
    assert!(!no.allowed);
    assert_eq!(no.reason(), DecisionReason::SubjectDisabled);
}

/// F02
#[tokio::test]
async fn only_a_concrete_permission_can_be_asked_for() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
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
        "users：read",
        " users:read",
        "users:read\n",
        &long,
    ] {
        let result = acme.permissions().check(ask("", malformed)).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let result = acme.permissions().check(ask("not-an-id", "users:read")).await;
    refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}

/// F03
#[tokio::test]
async fn a_wildcard_covers_exactly_one_whole_part() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["users:*", "*:read", "a.b:c"]).await;

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
        assert_eq!(acme.may(&ada.user_id, permission).await, allowed, "{permission}");
    }
}

/// F10
#[tokio::test]
async fn a_change_applies_as_soon_as_it_is_acknowledged() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;

    for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent] {
        let question = CheckRequest { consistency: consistency.into(), ..ask(&ada, "doc:read") };
        assert!(!acme.decide(question.clone()).await.allowed);
        acme.assign(&ada, &role).await;
        assert!(acme.decide(question.clone()).await.allowed);
        acme.unassign(&ada, &role).await;
        assert!(!acme.decide(question).await.allowed);
    }
    acme.assign(&ada, &role).await;
    let request = UpdateRoleRequest {
        role_id: role,
        permissions: vec!["doc:write".into()],
        ..UpdateRoleRequest::default()
    };
    acme.roles().update_role(request).await.expect("updated");
    assert!(!acme.may(&ada, "doc:read").await);
    assert!(acme.may(&ada, "doc:write").await);
}

/// F16
#[tokio::test]
async fn similar_questions_get_their_own_answers() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let role = a.create_role("r", RoleLevel::Member, &["a.b:c"]).await;
    let (ada, bob) = (a.create_user("ada@a.test").await, a.create_user("bob@a.test").await);
    a.assign_within(&ada, &role, serde_json::json!({"x:y": "z", "n": 1})).await;
    let other = b.create_role("r", RoleLevel::Member, &["a.b:c"]).await;
    let twin = b.create_user("ada@a.test").await;
    b.assign(&twin, &other).await;

    let question = |user: &str, permission: &str, scope| CheckRequest {
        scope: struct_of(scope),
        ..ask(user, permission)
    };
    let right = serde_json::json!({"x:y": "z", "n": 1});
    for round in 0..2 {
        assert!(a.decide(question(&ada, "a.b:c", right.clone())).await.allowed, "{round}");
        for (user, permission, scope) in [
            (&bob, "a.b:c", right.clone()),
            (&twin, "a.b:c", right.clone()),
            (&ada, "a:b.c", right.clone()),
            (&ada, "a.b:c", serde_json::json!({"x": "y:z", "n": 1})),
            (&ada, "a.b:c", serde_json::json!({"x:y": "z", "n": "1"})),
            (&ada, "a.b:c", serde_json::json!({"x:y:z": "", "n": 1})),
            (&ada, "a.b:c", serde_json::json!({"x:y": "z"})),
        ] {
            let no = a.decide(question(user, permission, scope.clone())).await;
            assert!(!no.allowed, "{round}: {user} {permission} {scope}");
        }
    }
}
