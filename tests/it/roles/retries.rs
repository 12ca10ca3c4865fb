//! RoleService: a request id makes a retry safe.

use tenantry::proto::v1::{AssignRoleRequest, CreateRoleRequest, RoleLevel};
use tonic::Code;

use super::create::{create, created_role, role_request};
use crate::harness::{TestApp, assert_refused};

fn request_with_id(request_id: &str) -> CreateRoleRequest {
    CreateRoleRequest {
        request_id: request_id.into(),
        ..role_request("ops", RoleLevel::Member, &["doc:read"])
    }
}

#[tokio::test]
async fn a_retry_gets_the_first_result() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let first_role = created_role(create(&acme, request_with_id("once")).await);
    assert_eq!(created_role(create(&acme, request_with_id("once")).await), first_role);
    assert_refused(
        create(&acme, request_with_id("other")).await,
        Code::AlreadyExists,
        "ROLE_NAME_TAKEN",
    );
    assert_refused(
        create(&acme, request_with_id("")).await,
        Code::AlreadyExists,
        "ROLE_NAME_TAKEN",
    );
}

#[tokio::test]
async fn a_request_id_cannot_be_reused_for_a_different_request() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    created_role(create(&acme, request_with_id("once")).await);

    for changed_request in [
        CreateRoleRequest { name: "dev".into(), ..request_with_id("once") },
        CreateRoleRequest { permissions: vec![], ..request_with_id("once") },
        CreateRoleRequest { level: RoleLevel::Viewer.into(), ..request_with_id("once") },
    ] {
        assert_refused(
            create(&acme, changed_request).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
        );
    }
}

#[tokio::test]
async fn a_request_id_belongs_to_its_caller_and_method() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &["role:create", "doc:read"]).await;
    let first_role = created_role(create(&acme, request_with_id("once")).await);

    let role_of_other_caller = created_role(create(&other, request_with_id("once")).await);
    assert_ne!(role_of_other_caller.id, first_role.id);
    let result = create(&ada, request_with_id("once")).await;
    assert_refused(result, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let request = AssignRoleRequest {
        user_id: ada.user_id,
        role_id: first_role.id,
        request_id: "once".into(),
        ..AssignRoleRequest::default()
    };
    let assigned = acme.roles().assign_role(request.clone()).await.expect("assigned");
    let retried = acme.roles().assign_role(request).await.expect("the first result");
    assert_eq!(retried.into_inner(), assigned.into_inner());
}

#[tokio::test]
async fn twenty_concurrent_equal_requests_create_one_role() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;

    let calls = (0..20).map(|_| create(&acme, request_with_id("once")));
    let roles: Vec<_> =
        futures::future::join_all(calls).await.into_iter().map(created_role).collect();
    assert!(roles.iter().all(|role| *role == roles[0]));
    let sql = "select count(*) from roles where tenant_id = $1 and name = 'ops'";
    assert_eq!(app.count(sql, &acme.tenant_id).await, 1);
    assert_eq!(app.audit_events("role_created").await.len(), 1);
}

#[tokio::test]
async fn the_id_of_a_refused_request_can_be_used_again() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    acme.create_role("ops", RoleLevel::Member, &[]).await;

    assert_refused(
        create(&acme, request_with_id("once")).await,
        Code::AlreadyExists,
        "ROLE_NAME_TAKEN",
    );
    let other_request = CreateRoleRequest { name: "dev".into(), ..request_with_id("once") };
    created_role(create(&acme, other_request).await);
}

#[tokio::test]
async fn malformed_request_ids_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    // A request id has at most 64 characters.
    let long_id = "a".repeat(65);

    for invalid_id in [" ", "a b", "ä", "a\0", "a:b", &long_id] {
        assert_refused(
            create(&acme, request_with_id(invalid_id)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
    }
}
