//! UserService.ListUsers

use prost_types::Timestamp;
use tenantry::proto::v1::{
    CreateUserRequest, DisableUserRequest, GetUserRequest, ListUsersRequest, LoginRequest, User,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, create_users};

async fn list_pages(client: &Client, filter: &str, page_size: i32) -> Vec<Vec<User>> {
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

async fn list_emails(client: &Client, filter: &str) -> Vec<String> {
    let mut emails: Vec<_> =
        list_pages(client, filter, 0).await.concat().into_iter().map(|user| user.email).collect();
    emails.sort_unstable();
    emails
}

/// D06: no page contains a user of another tenant.
/// G17: a page has 50 users by default, and at most 1000.
#[tokio::test]
async fn pages_contain_each_user_of_the_tenant_once() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_users(&[&a, &b], 1000).await;

    // The tenant has 1001 users with the administrator, and a page has 50 by default.
    for (size, page_count) in [(0, 21), (100, 11), (1000, 2), (i32::MAX, 2)] {
        let pages = list_pages(&b, "", size).await;
        assert_eq!(pages.len(), page_count, "pages of {size}");
        let users = pages.concat();
        assert_eq!(users.len(), 1001);
        assert!(users.iter().all(|user| user.tenant_id == b.tenant_id));
        assert!(
            users.windows(2).all(|pair| pair[0].id < pair[1].id),
            "oldest first, without duplicates"
        );
    }
}

#[tokio::test]
async fn a_filter_selects_users_by_state_email_and_name() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
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
        // The characters ％, ＿ and ＼ are full-width. Their normalised forms are special in SQL
        // patterns.
        ("email = \"％\"", vec![]),
        ("email = \"a＿a@x.test\"", vec!["a_a@x.test"]),
        ("email = \"＼\"", vec![]),
        ("email = \"\\\\\"", vec![]),
        ("email:\"@X.test\"", vec!["Ada@x.test", "a_a@x.test", "bob@x.test"]),
        ("email:x.test AND email:b AND state = DISABLED", vec!["bob@x.test"]),
        ("email_verified = true", vec![]),
        ("display_name = \"\" AND state = ACTIVE AND email = a_*", vec!["a_a@x.test"]),
    ] {
        assert_eq!(list_emails(&acme, filter).await, expected, "{filter}");
    }
    for invalid_filter in
        ["state = GONE", "id = x", "email", "email = a\0", "email = \"a", "AND", "email = *x"]
    {
        let request =
            ListUsersRequest { filter: invalid_filter.into(), ..ListUsersRequest::default() };
        let result = acme.users().list_users(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

/// G17: a negative page size is refused.
/// N14: the token is bound to the tenant and to the filter.
#[tokio::test]
async fn a_page_token_is_valid_only_for_its_own_list() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_users(&[&a, &b], 3).await;
    let first_request = ListUsersRequest { page_size: 1, ..ListUsersRequest::default() };
    let reply = a.users().list_users(first_request.clone()).await.expect("users").into_inner();
    let next_request =
        ListUsersRequest { page_token: reply.next_page_token, ..first_request.clone() };

    let filtered_request = ListUsersRequest { filter: "email = a*".into(), ..next_request.clone() };
    let garbage_request = ListUsersRequest { page_token: "AAAA".into(), ..first_request.clone() };
    for (client, request) in [(&b, next_request), (&a, filtered_request), (&a, garbage_request)] {
        let result = client.users().list_users(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    let negative_request = ListUsersRequest { page_size: -1, ..first_request };
    assert_refused(
        a.users().list_users(negative_request).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
}

/// N10: case and accents make no difference in names. A malformed filter is refused, and the error
/// marks the position of the mistake.
#[tokio::test]
async fn a_filter_ignores_case_and_accents_in_names() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    for (email, name) in [
        ("1@x.test", "Zoë Müller"),
        ("2@x.test", "Max MULLER-Lüdenscheidt"),
        ("3@x.test", "Starfish"),
        ("4@x.test", "Star*"),
        ("jose@x.test", "JOSE\u{301}"),
    ] {
        let request = CreateUserRequest {
            email: email.into(),
            display_name: name.into(),
            ..CreateUserRequest::default()
        };
        acme.users().create_user(request).await.expect("a user");
    }
    for (filter, expected) in [
        ("display_name:muller", vec!["1@x.test", "2@x.test"]),
        ("display_name:MÜLLER AND display_name:zoe", vec!["1@x.test"]),
        ("display_name = zoë*", vec!["1@x.test"]),
        (r#"display_name = "Star\*""#, vec!["4@x.test"]),
        (r#"display_name = "star*""#, vec!["3@x.test", "4@x.test"]),
        ("display_name = josé", vec!["jose@x.test"]),
        ("email:JOSÉ", vec!["jose@x.test"]),
    ] {
        assert_eq!(list_emails(&acme, filter).await, expected, "{filter}");
    }

    let filter = "display_name = \"*fish\"".to_owned();
    let reply = acme.users().list_users(ListUsersRequest { filter, ..Default::default() }).await;
    let status = assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
    let details = status.get_error_details();
    let violation = &details.bad_request().expect("details").field_violations[0];
    assert_eq!(violation.field, "filter");
    let lines: Vec<_> = violation.description.lines().skip(1).collect();
    assert_eq!(lines, ["display_name = \"*fish\"", "                ^"]);
    assert!(!status.message().contains('\n'), "{}", status.message());
}

/// N10: a page token is valid only for the order of its list.
#[tokio::test]
async fn users_can_be_sorted_and_filtered_by_the_last_sign_in() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let user_without_sign_in = acme.create_user_without_password("never@x.test").await;
    let bob = acme.create_user("bob@x.test").await;
    let ada = acme.create_user("ada@x.test").await;
    let get_user = async |user: &str| {
        let request = GetUserRequest { user_id: user.into() };
        acme.users().get_user(request).await.expect("found").into_inner().user.expect("the user")
    };
    let user_before = get_user(&bob).await;
    assert_eq!(user_before.last_sign_in_time, None);
    for email in ["ada@x.test", "bob@x.test"] {
        app.anonymous().login(&acme.slug, email, PASSWORD).await;
    }
    let user_after = get_user(&bob).await;
    assert_eq!(
        (&user_after.etag, user_after.update_time),
        (&user_before.etag, user_before.update_time)
    );
    let (time_of_ada, time_of_bob) =
        (get_user(&ada).await.last_sign_in_time, user_after.last_sign_in_time);
    let seconds_and_nanos = |time: Option<Timestamp>| time.map(|time| (time.seconds, time.nanos));
    assert!(seconds_and_nanos(time_of_ada) < seconds_and_nanos(time_of_bob));

    let list_ids = async |order_by: &str, filter: &str| {
        let mut request = ListUsersRequest {
            page_size: 1,
            order_by: order_by.into(),
            filter: filter.into(),
            ..ListUsersRequest::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = acme.users().list_users(request.clone()).await.expect("a page");
            let page = page.into_inner();
            ids.extend(page.users.into_iter().map(|user| user.id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return ids;
            }
        }
    };
    let admin = &acme.user_id;
    let by_sign_in = [&user_without_sign_in, admin, &ada, &bob].map(String::clone);
    let by_creation = [admin, &user_without_sign_in, &bob, &ada].map(String::clone);
    let reverse = |ids: &[String]| ids.iter().rev().cloned().collect::<Vec<_>>();
    assert_eq!(list_ids("last_sign_in_time", "").await, by_sign_in);
    assert_eq!(list_ids("last_sign_in_time desc", "").await, reverse(&by_sign_in));
    assert_eq!(list_ids("create_time asc", "").await, by_creation);
    assert_eq!(list_ids("create_time desc", "").await, reverse(&by_creation));
    let sign_in_time =
        tenantry::clock::from_timestamp(&time_of_bob.expect("a time")).expect("a time");
    let sign_in_time =
        sign_in_time.format(&time::format_description::well_known::Rfc3339).expect("RFC 3339");
    for (filter, ids) in [
        (format!("last_sign_in_time >= {sign_in_time}"), vec![bob.clone()]),
        (format!("last_sign_in_time > {sign_in_time}"), vec![]),
        (
            format!("last_sign_in_time <= {sign_in_time}"),
            vec![admin.clone(), ada.clone(), bob.clone()],
        ),
        (format!("last_sign_in_time < {sign_in_time} AND email:ada"), vec![ada.clone()]),
        (format!("id = {user_without_sign_in}"), vec![user_without_sign_in.clone()]),
        ("last_sign_in_time < 1990-01-01T00:00:00+01:00".into(), vec![]),
    ] {
        assert_eq!(list_ids("last_sign_in_time", &filter).await, ids, "{filter}");
    }

    // A page token is valid only for the order of its list.
    let first_request = ListUsersRequest { page_size: 1, ..ListUsersRequest::default() };
    let reply = acme.users().list_users(first_request.clone()).await.expect("a page");
    let page_token = reply.into_inner().next_page_token;
    let order_by = "create_time desc".into();
    let reordered_request = ListUsersRequest { page_token, order_by, ..first_request.clone() };
    let reply = acme.users().list_users(reordered_request).await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let invalid_request = ListUsersRequest { order_by: "email".into(), ..first_request };
    assert_refused(
        acme.users().list_users(invalid_request).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
}

/// N10: a sign-in fails with a wrong password, or when the password changes during the sign-in.
#[tokio::test]
async fn a_failed_sign_in_does_not_change_the_time_of_the_last_sign_in() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@x.test").await;
    let request = LoginRequest {
        email: "ada@x.test".into(),
        password: "wrong".into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    app.anonymous().auth().login(request).await.expect_err("the wrong password");
    // The password hash has changed since the comparison.
    let open_session = "select count(*) from open_session($1::uuid, $2::uuid, '{pwd}', 'another hash', null,
        gen_random_uuid(), '', '', '', now(), '', '', now(), now(), now(), gen_random_uuid(), '', null)";
    let opened_sessions: i64 = sqlx::query_scalar(open_session)
        .bind(&acme.tenant_id)
        .bind(&ada)
        .fetch_one(&app.app_role_pool().await)
        .await
        .expect("an answer");
    assert_eq!(opened_sessions, 0);
    let get_request = GetUserRequest { user_id: ada };
    let user = acme.users().get_user(get_request).await.expect("found").into_inner().user;
    assert_eq!(user.expect("the user").last_sign_in_time, None);
}
