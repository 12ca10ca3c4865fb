//! UserService.ListUsers

use tenantry::proto::v1::{DisableUserRequest, ListUsersRequest, User};
use tonic::Code;

use crate::harness::{Client, TestApp, fill, refused};

async fn pages(client: &Client, filter: &str, page_size: i32) -> Vec<Vec<User>> {
    let mut request =
        ListUsersRequest { filter: filter.into(), page_size, ..ListUsersRequest::default() };
    let mut pages = Vec::new();
    loop {
        let reply = client.users().list_users(request.clone()).await.expect("users").into_inner();
        pages.push(reply.users);
        request.page_token = reply.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

async fn emails(client: &Client, filter: &str) -> Vec<String> {
    let mut emails: Vec<_> =
        pages(client, filter, 0).await.concat().into_iter().map(|user| user.email).collect();
    emails.sort_unstable();
    emails
}

/// D06
#[tokio::test]
async fn pages_hold_each_user_of_the_tenant_once() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    fill(&[&a, &b], 1000).await;

    for (size, count) in [(0, 21), (100, 11), (1000, 2), (i32::MAX, 2)] {
        let found = pages(&b, "", size).await;
        assert_eq!(found.len(), count, "pages of {size}");
        let users = found.concat();
        assert_eq!(users.len(), 1001);
        assert!(users.iter().all(|user| user.tenant_id == b.tenant_id));
        assert!(users.windows(2).all(|pair| pair[0].id < pair[1].id), "oldest first, none twice");
    }
}

#[tokio::test]
async fn filters_choose_by_state_email_and_name() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    for email in ["Ada@x.test", "a_a@x.test", "bob@x.test"] {
        let user = acme.create_user_without_password(email).await;
        if email.starts_with("bob") {
            let request = DisableUserRequest { user_id: user };
            acme.users().disable_user(request).await.expect("disabled");
        }
    }

    for (filter, expected) in [
        ("state = DISABLED", vec!["bob@x.test"]),
        ("state = USER_STATE_DISABLED AND email = a*", vec![]),
        ("email = \"ADA@X.test\"", vec!["Ada@x.test"]),
        ("email = a*", vec!["Ada@x.test", "a_a@x.test", "admin@acme.test"]),
        ("email = a_a@x.test", vec!["a_a@x.test"]),
        ("email = a%", vec![]),
        ("email = \"％\"", vec![]),
        ("email = \"a＿a@x.test\"", vec!["a_a@x.test"]),
        ("email = \"＼\"", vec![]),
        ("email = \"\\\\\"", vec![]),
        ("display_name = \"\" AND state = ACTIVE AND email = a_*", vec!["a_a@x.test"]),
    ] {
        assert_eq!(emails(&acme, filter).await, expected, "{filter}");
    }
    for bad in ["state = GONE", "id = x", "email", "email = a\0", "email = \"a", "AND"] {
        let request = ListUsersRequest { filter: bad.into(), ..ListUsersRequest::default() };
        let result = acme.users().list_users(request).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

/// G17
#[tokio::test]
async fn a_page_token_is_good_for_its_own_list_alone() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    fill(&[&a, &b], 3).await;
    let first = ListUsersRequest { page_size: 1, ..ListUsersRequest::default() };
    let reply = a.users().list_users(first.clone()).await.expect("users").into_inner();
    let next = ListUsersRequest { page_token: reply.next_page_token, ..first.clone() };

    let filtered = ListUsersRequest { filter: "email = a*".into(), ..next.clone() };
    let garbage = ListUsersRequest { page_token: "AAAA".into(), ..first.clone() };
    for (client, request) in [(&b, next), (&a, filtered), (&a, garbage)] {
        let result = client.users().list_users(request).await;
        refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    let negative = ListUsersRequest { page_size: -1, ..first };
    refused(a.users().list_users(negative).await, Code::InvalidArgument, "INVALID_FIELDS");
}
