//! A list contains only objects of one tenant.

use std::collections::BTreeSet;

use tenantry::proto::v1::{
    ListRoleAssignmentsRequest, ListRolesRequest, ListSessionsRequest, ListTenantsRequest,
    ListUsersRequest, RoleLevel,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, create_users};

/// Lists all users that match a filter, page by page. Returns the tenant id and the id of each
/// user.
async fn list_users(client: &Client, page_size: i32, filter: &str) -> Vec<(String, String)> {
    let mut users = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListUsersRequest {
            page_size,
            page_token,
            filter: filter.into(),
            ..ListUsersRequest::default()
        };
        let page = client.users().list_users(request).await.expect("a page").into_inner();
        assert!(page.users.len() <= usize::try_from(page_size).expect("a size"));
        users.extend(page.users.into_iter().map(|user| (user.tenant_id, user.id)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

/// D06: pages and filters contain each user of the tenant, and no other user.
#[tokio::test]
async fn interleaved_users_of_two_tenants_are_listed_separately() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_users(&[&a, &b], 1000).await;

    for client in [&a, &b] {
        let owner_connection = &mut app.owner_connection().await;
        let sql = "select user_id::text from users where tenant_id = $1::text::uuid order by 1";
        let query = sqlx::query_scalar::<_, String>(sql).bind(&client.tenant_id);
        let expected = query.fetch_all(owner_connection).await.expect("ids");
        assert_eq!(expected.len(), 1001, "1000 users and the administrator");
        for page_size in [90, 1000] {
            let listed_users = list_users(client, page_size, "").await;
            assert!(listed_users.iter().all(|(tenant, _)| *tenant == client.tenant_id));
            assert!(listed_users.iter().map(|(_, id)| id).eq(&expected));
        }
        let listed_users = list_users(client, 7, "email = \"u10*\"").await;
        assert_eq!(listed_users.len(), 12, "u10, u100 to u109, and u1000");
    }
}

#[tokio::test]
async fn a_page_token_is_refused_in_another_tenant() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    a.create_user("one@a.test").await;
    b.create_user("one@b.test").await;
    let list_request =
        |page_token: String| ListUsersRequest { page_size: 1, page_token, ..Default::default() };
    let page =
        a.users().list_users(list_request(String::new())).await.expect("a page").into_inner();
    let reply = b.users().list_users(list_request(page.next_page_token.clone())).await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    a.users().list_users(list_request(page.next_page_token)).await.expect("the next page");
}

#[tokio::test]
async fn roles_assignments_and_sessions_of_two_tenants_are_listed_separately() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    for client in [&a, &b] {
        client.create_member("m", &["user:read"]).await;
        client.create_role("spare", RoleLevel::Member, &[]).await;
        app.anonymous().login(&client.slug, &client.email, PASSWORD).await;
    }
    let mut tenant_ids = BTreeSet::new();
    let roles = b.roles().list_roles(ListRolesRequest::default()).await.expect("roles");
    let roles = roles.into_inner().roles;
    assert_eq!(roles.len(), 6, "four system roles, `m` and `spare`");
    tenant_ids.extend(roles.into_iter().map(|role| role.tenant_id));
    let assignments = b.roles().list_role_assignments(ListRoleAssignmentsRequest::default()).await;
    let assignments = assignments.expect("assignments").into_inner().role_assignments;
    assert_eq!(assignments.len(), 2, "of the administrator and of `m`");
    tenant_ids.extend(assignments.into_iter().map(|assignment| assignment.tenant_id));
    let sessions = b.sessions().list_sessions(ListSessionsRequest::default()).await;
    let sessions = sessions.expect("sessions").into_inner().sessions;
    assert_eq!(sessions.len(), 2, "of the administrator");
    tenant_ids.extend(sessions.into_iter().map(|session| session.tenant_id));
    assert_eq!(tenant_ids, BTreeSet::from([b.tenant_id.clone()]));

    let reply = b.tenants().list_tenants(ListTenantsRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_wildcard_in_a_filter_matches_only_users_of_the_tenant() {
    let app = TestApp::shared();
    let (_, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    for filter in ["email = *", "email = \"admin*\"", "state = ACTIVE AND email = \"*\""] {
        let listed_users = list_users(&b, 100, filter).await;
        assert_eq!(listed_users, [(b.tenant_id.clone(), b.user_id.clone())], "{filter}");
    }
    for filter in ["email = \"%\"", "email = \"_dmin@b.test\"", "email = \"' or ''='\""] {
        assert_eq!(list_users(&b, 100, filter).await, [], "{filter}");
    }
}
