//! Service accounts themselves: create, find, delete, and their roles.

use tenantry::proto::v1::{
    CreateServiceAccountRequest, DeleteServiceAccountRequest, DeleteUserRequest,
    DisableUserRequest, GetServiceAccountRequest, GetUserRequest, ListServiceAccountsRequest,
    ListSubjectsRequest, ListUsersRequest, SubjectType, UnassignRoleRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{Client, TestApp, refused};

async fn names(client: &Client, filter: &str) -> Vec<String> {
    let request = ListServiceAccountsRequest { filter: filter.into(), ..Default::default() };
    let reply = client.service_accounts().list_service_accounts(request).await.expect("a page");
    reply.into_inner().service_accounts.into_iter().map(|account| account.name).collect()
}

#[tokio::test]
async fn an_account_is_created_once_found_and_deleted() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let request = CreateServiceAccountRequest {
        name: "billing".into(),
        description: "Sends invoices".into(),
        request_id: "once".into(),
    };
    let made = acme.service_accounts().create_service_account(request.clone()).await;
    let made = made.expect("made").into_inner();
    let again = acme.service_accounts().create_service_account(request.clone()).await;
    assert_eq!(again.expect("the same").into_inner(), made);
    let taken = CreateServiceAccountRequest { request_id: String::new(), ..request };
    let taken = acme.service_accounts().create_service_account(taken).await;
    refused(taken, Code::AlreadyExists, "SERVICE_ACCOUNT_NAME_TAKEN");

    let account = made.service_account.expect("the account");
    assert_eq!(
        (account.description.as_str(), &account.tenant_id),
        ("Sends invoices", &acme.tenant_id)
    );
    let get = GetServiceAccountRequest { service_account_id: account.id.clone() };
    let got = acme.service_accounts().get_service_account(get.clone()).await.expect("found");
    assert_eq!(got.into_inner().service_account, Some(account.clone()));
    acme.create_service_account("builds", &[]).await;
    assert_eq!(names(&acme, "").await, ["billing", "builds"]);
    assert_eq!(names(&acme, r#"name = "bil*""#).await, ["billing"]);

    let delete =
        DeleteServiceAccountRequest { service_account_id: account.id.clone(), etag: "v7".into() };
    let other = acme.service_accounts().delete_service_account(delete.clone()).await;
    refused(other, Code::Aborted, "ETAG_MISMATCH");
    let delete = DeleteServiceAccountRequest { etag: account.etag, ..delete };
    acme.service_accounts().delete_service_account(delete).await.expect("deleted");
    let gone = acme.service_accounts().get_service_account(get).await;
    refused(gone, Code::NotFound, "NOT_FOUND");
    assert_eq!(
        app.count("select count(*) from subjects where subject_id = $1", &account.id).await,
        0
    );
    for (kind, times) in [("service_account_created", 2), ("service_account_deleted", 1)] {
        assert_eq!(app.audited(&acme.tenant_id, kind).await, times, "{kind}");
    }
}

/// N16: names that look alike are one name.
#[tokio::test]
async fn similar_names_count_as_the_same_name() {
    let app = TestApp::shared();
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let made = |name: &str| CreateServiceAccountRequest {
        name: name.into(),
        ..CreateServiceAccountRequest::default()
    };
    let create = async |client: &Client, name: &str| {
        client.service_accounts().create_service_account(made(name)).await
    };
    create(&acme, "Café bot 1").await.expect("made");
    for taken in ["café bot 1", "CAFÉ\u{a0}BOT  1", "Cafe\u{301} bot １", "Ca\u{200d}fé bot 1"]
    {
        let result = create(&acme, taken).await;
        refused(result, Code::AlreadyExists, "SERVICE_ACCOUNT_NAME_TAKEN");
    }
    create(&acme, "Cafe bot 1").await.expect("another name");
    create(&other, "Café bot 1").await.expect("another tenant's");
}

/// An account has roles like a user, and decisions about it follow the same rules.
#[tokio::test]
async fn an_account_holds_roles_like_a_user() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &["invoice:send"]).await;
    assert!(acme.may(&account, "invoice:send").await);
    assert!(!acme.may(&account, "invoice:delete").await);

    let request = ListSubjectsRequest { permission: "invoice:send".into(), ..Default::default() };
    let reply = acme.permissions().list_subjects(request).await.expect("subjects").into_inner();
    let kinds: Vec<_> = reply.subjects.iter().map(|s| (s.user_id.as_str(), s.r#type())).collect();
    let expected =
        [(acme.user_id.as_str(), SubjectType::User), (&account, SubjectType::ServiceAccount)];
    assert_eq!(kinds, expected);

    let role = acme.role_named("billing").await;
    let request = UnassignRoleRequest {
        user_id: account.clone(),
        role_id: role,
        ..UnassignRoleRequest::default()
    };
    acme.roles().unassign_role(request).await.expect("taken");
    assert!(!acme.may(&account, "invoice:send").await);
}

#[tokio::test]
async fn the_user_service_does_not_reach_service_accounts() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let user_id = acme.create_service_account("billing", &["invoice:send"]).await;
    let get = acme.users().get_user(GetUserRequest { user_id: user_id.clone() }).await;
    refused(get, Code::NotFound, "NOT_FOUND");
    let request = DisableUserRequest { user_id: user_id.clone() };
    refused(acme.users().disable_user(request).await, Code::NotFound, "NOT_FOUND");
    let request = DeleteUserRequest { user_id: user_id.clone(), ..Default::default() };
    refused(acme.users().delete_user(request).await, Code::NotFound, "NOT_FOUND");
    let users = acme.users().list_users(ListUsersRequest::default()).await.expect("users");
    let users: Vec<_> = users.into_inner().users.into_iter().map(|user| user.id).collect();
    assert_eq!(users, [acme.user_id.as_str()], "the administrator alone");
    assert!(acme.may(&user_id, "invoice:send").await);
    // The service for accounts does not reach users either.
    let request = DeleteServiceAccountRequest {
        service_account_id: acme.user_id.clone(),
        ..Default::default()
    };
    let other = acme.service_accounts().delete_service_account(request).await;
    refused(other, Code::NotFound, "NOT_FOUND");
}

/// An account does not count as the last administrator. A caller that manages accounts cannot
/// delete one above its own level.
#[tokio::test]
async fn an_account_does_not_count_as_an_administrator() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("root", &[]).await;
    let admin = acme.system_role("org_admin").await;
    acme.assign(&account, &admin).await;
    let request = UnassignRoleRequest {
        user_id: acme.user_id.clone(),
        role_id: admin,
        ..UnassignRoleRequest::default()
    };
    let last = acme.roles().unassign_role(request).await;
    refused(last, Code::FailedPrecondition, "LAST_ORG_ADMIN");

    let member = acme.member("ada", &["service_account:delete"]).await;
    let request = DeleteServiceAccountRequest { service_account_id: account, ..Default::default() };
    let above = member.service_accounts().delete_service_account(request).await;
    refused(above, Code::PermissionDenied, "LEVEL_TOO_HIGH");
}

#[tokio::test]
async fn an_account_can_read_itself() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let id = acme.create_service_account("billing", &["invoice:send"]).await;
    let key = acme.create_api_key(&id).await;
    let account = app.anonymous().exchange(&key.secret).await;
    let me = account.auth().who_am_i(WhoAmIRequest {}).await.expect("itself").into_inner();
    assert_eq!(me.user, None);
    assert_eq!(me.service_account.expect("the account").id, id);
    assert_eq!(me.session_id, key.api_key.expect("the key").id);
    assert_eq!((me.roles, me.permissions), (vec!["billing".into()], vec!["invoice:send".into()]));
    let own = GetServiceAccountRequest { service_account_id: id };
    account.service_accounts().get_service_account(own).await.expect("its own");
    let other = GetServiceAccountRequest {
        service_account_id: acme.create_service_account("other", &[]).await,
    };
    let other = account.service_accounts().get_service_account(other).await;
    refused(other, Code::PermissionDenied, "PERMISSION_MISSING");
}
