//! RoleService.ListRoles and RoleService.ListRoleAssignments

use serde_json::json;
use tenantry::proto::v1::{
    ListRoleAssignmentsRequest, ListRolesRequest, RoleAssignment, RoleLevel,
};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused};

async fn list_pages_of_names(client: &Client, filter: &str, page_size: i32) -> Vec<Vec<String>> {
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

async fn list_assignments(
    client: &Client,
    request: ListRoleAssignmentsRequest,
) -> Vec<RoleAssignment> {
    let reply = client.roles().list_role_assignments(request).await.expect("assignments");
    reply.into_inner().role_assignments
}

#[tokio::test]
async fn pages_contain_each_role_of_the_tenant_once_oldest_first() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    other.create_role("theirs", RoleLevel::Member, &[]).await;
    for name in ["one", "two", "three"] {
        acme.create_role(name, RoleLevel::Member, &[]).await;
    }

    let expected = ["org_admin", "manager", "member", "viewer", "one", "two", "three"];
    for (size, page_count) in [(0, 1), (1, 7), (3, 3), (7, 1), (1000, 1), (i32::MAX, 1)] {
        let pages = list_pages_of_names(&acme, "", size).await;
        assert_eq!(pages.len(), page_count, "pages of {size}");
        assert_eq!(pages.concat(), expected);
    }
}

#[tokio::test]
async fn a_filter_selects_roles_by_name_and_level() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
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
        assert_eq!(list_pages_of_names(&acme, filter, 0).await.concat(), expected, "{filter}");
    }
    for invalid_filter in
        ["level = BOSS", "system = true", "name", "name = a OR name = b", "level > VIEWER"]
    {
        let request =
            ListRolesRequest { filter: invalid_filter.into(), ..ListRolesRequest::default() };
        let result = acme.roles().list_roles(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn a_page_token_is_valid_only_for_its_own_list() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let first_request = ListRolesRequest { page_size: 1, ..ListRolesRequest::default() };
    let reply = acme.roles().list_roles(first_request.clone()).await.expect("roles").into_inner();
    let next_request =
        ListRolesRequest { page_token: reply.next_page_token, ..first_request.clone() };

    let filtered_request = ListRolesRequest { filter: "name = a*".into(), ..next_request.clone() };
    let garbage_request =
        ListRolesRequest { page_token: "' or 1=1--".into(), ..first_request.clone() };
    for (client, request) in
        [(&acme, filtered_request), (&acme, garbage_request), (&other, next_request)]
    {
        let result = client.roles().list_roles(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    let negative_request = ListRolesRequest { page_size: -1, ..first_request };
    let result = acme.roles().list_roles(negative_request).await;
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn unexpired_assignments_are_listed_by_user_role_and_role_name() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (ada, bob) =
        (acme.create_user("ada@acme.test").await, acme.create_user("bob@acme.test").await);
    let ops = acme.create_role("ops", RoleLevel::Member, &[]).await;
    let dev = acme.create_role("dev", RoleLevel::Member, &[]).await;
    acme.assign(&ada, &ops).await;
    acme.assign_with_scope(&ada, &dev, json!({ "p": "x" })).await;
    acme.assign_for_an_hour(&bob, &ops).await;

    let list_request = |user: &str, role: &str, filter: &str| ListRoleAssignmentsRequest {
        user_id: user.into(),
        role_id: role.into(),
        filter: filter.into(),
        ..ListRoleAssignmentsRequest::default()
    };
    for (request, count) in [
        // The three assignments above, and the assignment of the administrator.
        (list_request("", "", ""), 4),
        (list_request(&ada, "", ""), 2),
        (list_request("", &ops, ""), 2),
        (list_request(&bob, &ops, ""), 1),
        (list_request(&bob, &dev, ""), 0),
        (list_request("", "", "role_name = d*"), 1),
        (list_request(&ada, "", "role_name = ops"), 1),
    ] {
        assert_eq!(list_assignments(&acme, request.clone()).await.len(), count, "{request:?}");
    }
    app.expire_assignments(&bob).await;
    assert!(list_assignments(&acme, list_request(&bob, "", "")).await.is_empty());
    let scoped = list_assignments(&acme, list_request(&ada, &dev, "")).await;
    assert_eq!(scoped[0].scope, crate::harness::struct_of(json!({ "p": "x" })));
}

#[tokio::test]
async fn a_caller_without_the_permission_lists_its_own_assignments() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let list_request = |user: &str| ListRoleAssignmentsRequest {
        user_id: user.into(),
        ..ListRoleAssignmentsRequest::default()
    };

    for user_id in ["", &ada.user_id] {
        let assignments = list_assignments(&ada, list_request(user_id)).await;
        assert_eq!(assignments.len(), 1);
        assert_eq!(
            (&assignments[0].user_id, assignments[0].role_name.as_str()),
            (&ada.user_id, "ada")
        );
    }
    let result = ada.roles().list_role_assignments(list_request(&acme.user_id)).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    assert!(
        list_assignments(&acme, list_request(&other.user_id)).await.is_empty(),
        "a user of another tenant"
    );
}
