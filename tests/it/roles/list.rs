//! RoleService: lists

use serde_json::json;
use tenantry::proto::v1::{
    ListRoleAssignmentsRequest, ListRolesRequest, RoleAssignment, RoleLevel,
};
use tonic::Code;

use crate::harness::{Client, TestApp, refused};

async fn names(client: &Client, filter: &str, page_size: i32) -> Vec<Vec<String>> {
    let mut request =
        ListRolesRequest { filter: filter.into(), page_size, ..ListRolesRequest::default() };
    let mut pages = Vec::new();
    loop {
        let reply = client.roles().list_roles(request.clone()).await.expect("roles").into_inner();
        pages.push(reply.roles.into_iter().map(|role| role.name).collect());
        request.page_token = reply.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

async fn assignments(client: &Client, request: ListRoleAssignmentsRequest) -> Vec<RoleAssignment> {
    let reply = client.roles().list_role_assignments(request).await.expect("assignments");
    reply.into_inner().role_assignments
}

#[tokio::test]
async fn pages_contain_each_role_of_the_tenant_once_oldest_first() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    other.create_role("theirs", RoleLevel::Member, &[]).await;
    for name in ["one", "two", "three"] {
        acme.create_role(name, RoleLevel::Member, &[]).await;
    }

    let expected = ["org_admin", "manager", "member", "viewer", "one", "two", "three"];
    for (size, pages) in [(0, 1), (1, 7), (3, 3), (7, 1), (1000, 1), (i32::MAX, 1)] {
        let found = names(&acme, "", size).await;
        assert_eq!(found.len(), pages, "pages of {size}");
        assert_eq!(found.concat(), expected);
    }
}

#[tokio::test]
async fn filters_choose_by_name_and_level() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    acme.create_role("ops_1", RoleLevel::Manager, &[]).await;
    acme.create_role("opsx1", RoleLevel::Member, &[]).await;
    acme.create_role("Ops two", RoleLevel::Manager, &[]).await;

    for (filter, expected) in [
        ("name = ops*", vec!["ops_1", "opsx1", "Ops two"]),
        ("name = \"OPS TWO\"", vec!["Ops two"]),
        ("name:TWO", vec!["Ops two"]),
        ("name = ops_1", vec!["ops_1"]),
        ("name = \"Ops two\"", vec!["Ops two"]),
        ("level = MANAGER", vec!["manager", "ops_1", "Ops two"]),
        ("level = ROLE_LEVEL_MANAGER AND name = \"ops*\"", vec!["ops_1", "Ops two"]),
        ("name = \"%\"", vec![]),
        ("name = nobody", vec![]),
    ] {
        assert_eq!(names(&acme, filter, 0).await.concat(), expected, "{filter}");
    }
    for bad in ["level = BOSS", "system = true", "name", "name = a OR name = b", "level > VIEWER"] {
        let request = ListRolesRequest { filter: bad.into(), ..ListRolesRequest::default() };
        let result = acme.roles().list_roles(request).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_page_token_is_valid_only_for_its_own_list() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let first = ListRolesRequest { page_size: 1, ..ListRolesRequest::default() };
    let reply = acme.roles().list_roles(first.clone()).await.expect("roles").into_inner();
    let next = ListRolesRequest { page_token: reply.next_page_token, ..first.clone() };

    let filtered = ListRolesRequest { filter: "name = a*".into(), ..next.clone() };
    let garbage = ListRolesRequest { page_token: "' or 1=1--".into(), ..first.clone() };
    for (client, request) in [(&acme, filtered), (&acme, garbage), (&other, next)] {
        let result = client.roles().list_roles(request).await;
        refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    let negative = ListRolesRequest { page_size: -1, ..first };
    let result = acme.roles().list_roles(negative).await;
    refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn assignments_are_listed_by_user_role_and_name_until_they_expire() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let (ada, bob) =
        (acme.create_user("ada@acme.test").await, acme.create_user("bob@acme.test").await);
    let ops = acme.create_role("ops", RoleLevel::Member, &[]).await;
    let dev = acme.create_role("dev", RoleLevel::Member, &[]).await;
    acme.assign(&ada, &ops).await;
    acme.assign_within(&ada, &dev, json!({ "p": "x" })).await;
    acme.assign_for_an_hour(&bob, &ops).await;

    let of = |user: &str, role: &str, filter: &str| ListRoleAssignmentsRequest {
        user_id: user.into(),
        role_id: role.into(),
        filter: filter.into(),
        ..ListRoleAssignmentsRequest::default()
    };
    for (request, count) in [
        (of("", "", ""), 4),
        (of(&ada, "", ""), 2),
        (of("", &ops, ""), 2),
        (of(&bob, &ops, ""), 1),
        (of(&bob, &dev, ""), 0),
        (of("", "", "role_name = d*"), 1),
        (of(&ada, "", "role_name = ops"), 1),
    ] {
        assert_eq!(assignments(&acme, request.clone()).await.len(), count, "{request:?}");
    }
    app.let_expire(&bob).await;
    assert!(assignments(&acme, of(&bob, "", "")).await.is_empty());
    let scoped = assignments(&acme, of(&ada, &dev, "")).await;
    assert_eq!(scoped[0].scope, crate::harness::struct_of(json!({ "p": "x" })));
}

#[tokio::test]
async fn a_caller_without_the_permission_lists_its_own_assignments() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let ada = acme.member("ada", &["doc:read"]).await;
    let of = |user: &str| ListRoleAssignmentsRequest {
        user_id: user.into(),
        ..ListRoleAssignmentsRequest::default()
    };

    for own in ["", &ada.user_id] {
        let found = assignments(&ada, of(own)).await;
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].user_id, found[0].role_name.as_str()), (&ada.user_id, "ada"));
    }
    let result = ada.roles().list_role_assignments(of(&acme.user_id)).await;
    refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    assert!(assignments(&acme, of(&other.user_id)).await.is_empty(), "another tenant's user");
}
