//! Service accounts: creation, search, deletion, and roles.

use tenantry::proto::v1::{
    CreateServiceAccountRequest, DeleteServiceAccountRequest, DeleteUserRequest,
    DisableUserRequest, GetServiceAccountRequest, GetUserRequest, ListServiceAccountsRequest,
    ListSubjectsRequest, ListUsersRequest, SubjectType, UnassignRoleRequest,
};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused};

async fn list_names(client: &Client, filter: &str) -> Vec<String> {
    let request = ListServiceAccountsRequest { filter: filter.into(), ..Default::default() };
    let reply = client.service_accounts().list_service_accounts(request).await.expect("a page");
    reply.into_inner().service_accounts.into_iter().map(|account| account.name).collect()
}

#[tokio::test]
async fn an_account_can_be_created_found_and_deleted() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request = CreateServiceAccountRequest {
        name: "billing".into(),
        description: "Sends invoices".into(),
        request_id: "once".into(),
    };
    let reply = acme.service_accounts().create_service_account(request.clone()).await;
    let response = reply.expect("created").into_inner();
    let retried = acme.service_accounts().create_service_account(request.clone()).await;
    assert_eq!(retried.expect("the first response").into_inner(), response);
    let second_request = CreateServiceAccountRequest { request_id: String::new(), ..request };
    let result = acme.service_accounts().create_service_account(second_request).await;
    assert_refused(result, Code::AlreadyExists, "SERVICE_ACCOUNT_NAME_TAKEN");

    let account = response.service_account.expect("the account");
    assert_eq!(
        (account.description.as_str(), &account.tenant_id),
        ("Sends invoices", &acme.tenant_id)
    );
    let get_request = GetServiceAccountRequest { service_account_id: account.id.clone() };
    let reply =
        acme.service_accounts().get_service_account(get_request.clone()).await.expect("found");
    assert_eq!(reply.into_inner().service_account, Some(account.clone()));
    acme.create_service_account("builds", &[]).await;
    assert_eq!(list_names(&acme, "").await, ["billing", "builds"]);
    assert_eq!(list_names(&acme, r#"name = "bil*""#).await, ["billing"]);

    let delete_request =
        DeleteServiceAccountRequest { service_account_id: account.id.clone(), etag: "v7".into() };
    let result = acme.service_accounts().delete_service_account(delete_request.clone()).await;
    assert_refused(result, Code::Aborted, "ETAG_MISMATCH");
    let delete_request = DeleteServiceAccountRequest { etag: account.etag, ..delete_request };
    acme.service_accounts().delete_service_account(delete_request).await.expect("deleted");
    let result = acme.service_accounts().get_service_account(get_request).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    assert_eq!(
        app.count("select count(*) from subjects where subject_id = $1", &account.id).await,
        0
    );
    for (kind, times) in [("service_account_created", 2), ("service_account_deleted", 1)] {
        assert_eq!(app.audit_event_count(&acme.tenant_id, kind).await, times, "{kind}");
    }
}

/// N16: case, kinds of spaces and Unicode forms make no difference. Accents do.
#[tokio::test]
async fn similar_names_count_as_the_same_name() {
    let app = TestApp::shared();
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let create_request = |name: &str| CreateServiceAccountRequest {
        name: name.into(),
        ..CreateServiceAccountRequest::default()
    };
    let create = async |client: &Client, name: &str| {
        client.service_accounts().create_service_account(create_request(name)).await
    };
    create(&acme, "Café bot 1").await.expect("created");
    for similar_name in
        ["café bot 1", "CAFÉ\u{a0}BOT  1", "Cafe\u{301} bot １", "Ca\u{200d}fé bot 1"]
    {
        let result = create(&acme, similar_name).await;
        assert_refused(result, Code::AlreadyExists, "SERVICE_ACCOUNT_NAME_TAKEN");
    }
    create(&acme, "Cafe bot 1").await.expect("a different name");
    create(&other, "Café bot 1").await.expect("the name is free in another tenant");
}

/// An account has roles like a user, and decisions about the account follow the same rules.
#[tokio::test]
async fn an_account_holds_roles_like_a_user() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    assert!(acme.user_may(&account, "invoice:send").await);
    assert!(!acme.user_may(&account, "invoice:delete").await);

    let request = ListSubjectsRequest { permission: "invoice:send".into(), ..Default::default() };
    let reply = acme.permissions().list_subjects(request).await.expect("subjects").into_inner();
    let subjects: Vec<_> =
        reply.subjects.iter().map(|s| (s.user_id.as_str(), s.r#type())).collect();
    let expected =
        [(acme.user_id.as_str(), SubjectType::User), (&account, SubjectType::ServiceAccount)];
    assert_eq!(subjects, expected);

    let role = acme.role_id("billing").await;
    let request = UnassignRoleRequest {
        user_id: account.clone(),
        role_id: role,
        ..UnassignRoleRequest::default()
    };
    acme.roles().unassign_role(request).await.expect("unassigned");
    assert!(!acme.user_may(&account, "invoice:send").await);
}

#[tokio::test]
async fn the_user_service_does_not_reach_service_accounts() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account_id = acme.create_service_account("billing", &["invoice:send"]).await;
    let result = acme.users().get_user(GetUserRequest { user_id: account_id.clone() }).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    let request = DisableUserRequest { user_id: account_id.clone() };
    assert_refused(acme.users().disable_user(request).await, Code::NotFound, "NOT_FOUND");
    let request = DeleteUserRequest { user_id: account_id.clone(), ..Default::default() };
    assert_refused(acme.users().delete_user(request).await, Code::NotFound, "NOT_FOUND");
    let users = acme.users().list_users(ListUsersRequest::default()).await.expect("users");
    let users: Vec<_> = users.into_inner().users.into_iter().map(|user| user.id).collect();
    assert_eq!(users, [acme.user_id.as_str()], "the list contains only the administrator");
    assert!(acme.user_may(&account_id, "invoice:send").await);
    // ServiceAccountService does not reach users either.
    let request = DeleteServiceAccountRequest {
        service_account_id: acme.user_id.clone(),
        ..Default::default()
    };
    let result = acme.service_accounts().delete_service_account(request).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
}

/// A tenant needs a user as administrator. A caller with the permission to delete accounts cannot
/// delete an account of a higher level.
#[tokio::test]
async fn an_account_does_not_count_as_an_administrator() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("root", &[]).await;
    let admin_role = acme.system_role("org_admin").await;
    acme.assign(&account, &admin_role).await;
    let request = UnassignRoleRequest {
        user_id: acme.user_id.clone(),
        role_id: admin_role,
        ..UnassignRoleRequest::default()
    };
    let result = acme.roles().unassign_role(request).await;
    assert_refused(result, Code::FailedPrecondition, "LAST_ORG_ADMIN");

    let member = acme.create_member("ada", &["service_account:delete"]).await;
    let request = DeleteServiceAccountRequest { service_account_id: account, ..Default::default() };
    let result = member.service_accounts().delete_service_account(request).await;
    assert_refused(result, Code::PermissionDenied, "LEVEL_TOO_HIGH");
}

#[tokio::test]
async fn an_account_can_read_itself() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let id = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&id).await;
    let account = app.anonymous().exchange(&key.secret).await;
    let me = account.identity().await;
    assert_eq!(me.user, None);
    assert_eq!(me.service_account.expect("the account").id, id);
    assert_eq!(me.session_id, key.api_key.expect("the key").id);
    assert_eq!((me.roles, me.permissions), (vec!["billing".into()], vec!["invoice:send".into()]));
    let own_request = GetServiceAccountRequest { service_account_id: id };
    account.service_accounts().get_service_account(own_request).await.expect("the account");
    let other_request = GetServiceAccountRequest {
        service_account_id: acme.create_service_account("other", &[]).await,
    };
    let result = account.service_accounts().get_service_account(other_request).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}
