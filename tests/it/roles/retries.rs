//! RoleService: a request id makes a retry safe.

use tenantry::proto::v1::{AssignRoleRequest, CreateRoleRequest, RoleLevel};
use tonic::Code;

use super::create::{create, made, role};
use crate::harness::{TestApp, refused};

fn with_id(request_id: &str) -> CreateRoleRequest {
    CreateRoleRequest {
        request_id: request_id.into(),
        ..role("ops", RoleLevel::Member, &["doc:read"])
    }
}

#[tokio::test]
async fn a_retry_gets_the_first_result() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;

    let first = made(create(&acme, with_id("once")).await);
    assert_eq!(made(create(&acme, with_id("once")).await), first);
    refused(create(&acme, with_id("other")).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    refused(create(&acme, with_id("")).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
}

#[tokio::test]
async fn a_request_id_is_valid_for_one_request() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    made(create(&acme, with_id("once")).await);

    for other in [
        CreateRoleRequest { name: "dev".into(), ..with_id("once") },
        CreateRoleRequest { permissions: vec![], ..with_id("once") },
        CreateRoleRequest { level: RoleLevel::Viewer.into(), ..with_id("once") },
    ] {
        refused(create(&acme, other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    }
}

#[tokio::test]
async fn an_id_belongs_to_its_caller_and_method() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let ada = acme.member("ada", &["role:create", "doc:read"]).await;
    let first = made(create(&acme, with_id("once")).await);

    let role_of_other_caller = made(create(&other, with_id("once")).await);
    assert_ne!(role_of_other_caller.id, first.id);
    let colleague = create(&ada, with_id("once")).await;
    refused(colleague, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let request = AssignRoleRequest {
        user_id: ada.user_id,
        role_id: first.id,
        request_id: "once".into(),
        ..AssignRoleRequest::default()
    };
    let assigned = acme.roles().assign_role(request.clone()).await.expect("assigned");
    let again = acme.roles().assign_role(request).await.expect("the first result");
    assert_eq!(again.into_inner(), assigned.into_inner());
}

#[tokio::test]
async fn twenty_concurrent_equal_requests_create_one_role() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;

    let calls = (0..20).map(|_| create(&acme, with_id("once")));
    let roles: Vec<_> = futures::future::join_all(calls).await.into_iter().map(made).collect();
    assert!(roles.iter().all(|role| *role == roles[0]));
    let sql = "select count(*) from roles where tenant_id = $1 and name = 'ops'";
    assert_eq!(app.count(sql, &acme.tenant_id).await, 1);
    assert_eq!(app.recorded("role_created").await.len(), 1);
}

#[tokio::test]
async fn a_refused_request_leaves_its_id_free() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    acme.create_role("ops", RoleLevel::Member, &[]).await;

    refused(create(&acme, with_id("once")).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let renamed = CreateRoleRequest { name: "dev".into(), ..with_id("once") };
    made(create(&acme, renamed).await);
}

#[tokio::test]
async fn malformed_ids_are_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let long = "a".repeat(65);

    for bad in [" ", "a b", "ä", "a\0", "a:b", &long] {
        refused(create(&acme, with_id(bad)).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
