//! PermissionService.ListSubjects

use serde_json::{Value, json};
use tenantry::proto::v1::{
    DisableUserRequest, ListSubjectsRequest, ListSubjectsResponse, RoleLevel, Subject, SubjectType,
    SuspendTenantRequest,
};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused, struct_of};

fn list_request(permission: &str, scope: Value) -> ListSubjectsRequest {
    ListSubjectsRequest {
        permission: permission.into(),
        scope: struct_of(scope),
        ..ListSubjectsRequest::default()
    }
}

async fn page(client: &Client, request: ListSubjectsRequest) -> ListSubjectsResponse {
    client.permissions().list_subjects(request).await.expect("a page").into_inner()
}

/// The subjects of all pages, and the number of pages.
async fn all_pages(client: &Client, mut request: ListSubjectsRequest) -> (Vec<Subject>, usize) {
    let (mut subjects, mut pages) = (Vec::new(), 0);
    loop {
        let reply = page(client, request.clone()).await;
        subjects.extend(reply.subjects);
        pages += 1;
        if reply.next_page_token.is_empty() {
            return (subjects, pages);
        }
        request.page_token = reply.next_page_token;
    }
}

async fn ids(client: &Client, request: ListSubjectsRequest) -> Vec<String> {
    all_pages(client, request).await.0.into_iter().map(|subject| subject.user_id).collect()
}

#[tokio::test]
async fn subjects_are_listed_in_order_of_id_with_the_role_that_grants_the_permission() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let clerk = acme.create_role("clerk", RoleLevel::Member, &["invoice:pay"]).await;
    let boss = acme.create_role("boss", RoleLevel::Manager, &["invoice:*"]).await;
    let payer = acme.create_role("payer", RoleLevel::Member, &["*:pay"]).await;
    acme.create_role("unassigned", RoleLevel::Member, &["invoice:pay"]).await;
    let mut users = Vec::new();
    for n in 0..5 {
        users.push(acme.create_user_without_password(&format!("u{n}@acme.test")).await);
    }
    acme.assign_with_scope(&users[0], &clerk, json!({ "team": "x" })).await;
    acme.assign_with_scope(&users[1], &boss, json!({ "team": "y" })).await;
    acme.assign_for_an_hour(&users[2], &payer).await;
    // This user has the permission twice, once without a scope.
    acme.assign_with_scope(&users[3], &clerk, json!({ "team": "x" })).await;
    acme.assign(&users[3], &boss).await;

    let subject = |user: &str, role: &str, scope| Subject {
        r#type: SubjectType::User.into(),
        user_id: user.into(),
        role_name: role.into(),
        scope: struct_of(scope),
        expire_time: None,
    };
    let mut subjects =
        all_pages(&acme, list_request("invoice:pay", json!({ "team": "x" }))).await.0;
    let expiry = subjects[2].expire_time.take().expect("an expiry").seconds;
    assert!(expiry > tenantry::clock::now().unix_timestamp());
    let expected = [
        subject(&acme.user_id, "org_admin", json!(null)),
        subject(&users[0], "clerk", json!({ "team": "x" })),
        subject(&users[2], "payer", json!(null)),
        subject(&users[3], "boss", json!(null)),
    ];
    assert_eq!(subjects, expected);
    let users_without_scope = [&acme.user_id, &users[2], &users[3]].map(String::clone);
    assert_eq!(ids(&acme, list_request("invoice:pay", json!(null))).await, users_without_scope);
    assert_eq!(ids(&acme, list_request("doc:read", json!(null))).await, [&*acme.user_id]);
}

#[tokio::test]
async fn listing_subjects_requires_two_permissions() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    for (name, permissions) in [("a", ["permission:check"]), ("b", ["role:read"])] {
        let member = acme.create_member(name, &permissions).await;
        let result =
            member.permissions().list_subjects(list_request("doc:read", json!(null))).await;
        assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    let auditor = acme.create_member("auditor", &["permission:check", "role:read"]).await;
    assert_eq!(ids(&auditor, list_request("doc:read", json!(null))).await, [&*acme.user_id]);
    for malformed in ["", "doc", "doc:*", "*:*"] {
        let result = acme.permissions().list_subjects(list_request(malformed, json!(null))).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn disabled_users_expired_assignments_and_suspended_tenants_are_left_out() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let platform_admin = app.platform_admin().await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let mut users = Vec::new();
    for name in ["ada", "disabled", "expired"] {
        users.push(acme.create_user_without_password(&format!("{name}@acme.test")).await);
    }
    acme.assign(&users[0], &role).await;
    acme.assign(&users[1], &role).await;
    acme.assign_for_an_hour(&users[2], &role).await;
    app.expire_assignments(&users[2]).await;
    let request = DisableUserRequest { user_id: users[1].clone() };
    acme.users().disable_user(request).await.expect("disabled");

    let request_without_scope = list_request("doc:read", json!(null));
    let active_users = [acme.user_id.clone(), users[0].clone()];
    assert_eq!(ids(&acme, request_without_scope.clone()).await, active_users);
    assert_eq!(ids(&other, request_without_scope.clone()).await, [&*other.user_id]);

    let platform_admin_in_acme = platform_admin.with_metadata("x-tenant-id", &acme.tenant_id);
    assert_eq!(ids(&platform_admin_in_acme, request_without_scope.clone()).await, active_users);
    let request = SuspendTenantRequest { tenant: acme.tenant_id.clone() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    assert_eq!(ids(&platform_admin_in_acme, request_without_scope).await, [""; 0]);
}

#[tokio::test]
async fn pages_have_no_gaps_or_duplicates_and_a_page_token_is_valid_only_for_its_request() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let mut roles = Vec::new();
    for n in 0..3 {
        roles.push(acme.create_role(&format!("r{n}"), RoleLevel::Member, &["doc:read"]).await);
    }
    let mut expected = vec![acme.user_id.clone()];
    for n in 0..10 {
        let user = acme.create_user_without_password(&format!("u{n}@acme.test")).await;
        // Each user gets one, two or three of the roles, so some subjects have the permission
        // several times.
        for role in &roles[n % 3..] {
            acme.assign(&user, role).await;
        }
        expected.push(user);
    }
    for size in [1, 2, 3, 10, 11, 1000] {
        let request =
            ListSubjectsRequest { page_size: size, ..list_request("doc:read", json!(null)) };
        assert_eq!(ids(&acme, request).await, expected, "{size}");
    }

    let request =
        ListSubjectsRequest { page_size: 1, ..list_request("doc:read", json!({ "p": 1 })) };
    let token = page(&acme, request.clone()).await.next_page_token;
    for other in [
        ListSubjectsRequest { permission: "doc:write".into(), ..request.clone() },
        ListSubjectsRequest { scope: struct_of(json!({ "p": 2 })), ..request.clone() },
    ] {
        let request = ListSubjectsRequest { page_token: token.clone(), ..other };
        let result = acme.permissions().list_subjects(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
}

/// Few of many assignments match the scope. A page may be empty, and only a page without a page
/// token is the last page.
#[tokio::test]
async fn a_page_that_reads_only_a_bounded_number_of_rows_loses_no_subject() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let insert = "with new_users as (
            insert into users (tenant_id, user_id, profile, email_index, email_lookup)
            select $1::uuid, gen_random_uuid(), '', sha256(n::text::bytea), sha256(n::text::bytea)
            from generate_series(1, 700) n
            returning tenant_id, user_id
        ), numbered as (
            select *, row_number() over (order by user_id) as nth from new_users
        ), new_assignments as (
            insert into role_assignments
                (tenant_id, assignment_id, user_id, role_id, scope, scope_key)
            select tenant_id, gen_random_uuid(), user_id, $2::uuid,
                jsonb_build_object('p', case when nth = 650 then 'x' else 'y' end,
                    'k', assignment_number),
                assignment_number::text::bytea
            -- One user has more assignments than the server reads for one page.
            from numbered,
                generate_series(1, case when nth = 10 then 600 else 1 end) assignment_number
        )
        select user_id::text from numbered where nth = 650";
    let matching_user: String = sqlx::query_scalar(insert)
        .bind(&acme.tenant_id)
        .bind(&role)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("users");

    let request = ListSubjectsRequest {
        page_size: 5,
        ..list_request("doc:read", json!({ "p": "x", "k": 1 }))
    };
    let first_page = page(&acme, request.clone()).await;
    // The first page may have the administrator, but no other subject.
    assert!(first_page.subjects.len() < 2 && !first_page.next_page_token.is_empty());
    let (mut subjects, pages) = all_pages(&acme, request).await;
    subjects.retain(|subject| subject.user_id != acme.user_id);
    assert_eq!(
        subjects.iter().map(|subject| &subject.user_id).collect::<Vec<_>>(),
        [&matching_user]
    );
    // There are 1,300 assignments. A page reads about 250, or all 600 assignments of one user.
    assert!((3..=8).contains(&pages), "{pages} pages");
    let (subjects, _) =
        all_pages(&acme, list_request("doc:read", json!({ "p": "y", "k": 1 }))).await;
    assert_eq!(subjects.len(), 700, "699 users and the administrator");
}
