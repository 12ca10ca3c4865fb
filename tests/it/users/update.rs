//! UserService.UpdateUser

use tenantry::proto::v1::{RoleLevel, UpdateUserRequest, UpdateUserResponse, User};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, mask, unknown_id};

fn update_request(user_id: &str) -> UpdateUserRequest {
    UpdateUserRequest { user_id: user_id.into(), ..UpdateUserRequest::default() }
}

fn name_request(user_id: &str, name: &str) -> UpdateUserRequest {
    UpdateUserRequest { display_name: Some(name.into()), ..update_request(user_id) }
}

fn email_request(user_id: &str, email: &str) -> UpdateUserRequest {
    UpdateUserRequest { email: Some(email.into()), ..update_request(user_id) }
}

async fn try_update(
    client: &Client,
    request: UpdateUserRequest,
) -> Result<Response<UpdateUserResponse>, Status> {
    client.users().update_user(request).await
}

async fn update_user(client: &Client, request: UpdateUserRequest) -> User {
    try_update(client, request).await.expect("updated").into_inner().user.expect("the user")
}

#[tokio::test]
async fn an_update_with_a_mask_changes_its_fields_and_without_a_mask_all_fields_that_are_set() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let full_request =
        UpdateUserRequest { email: Some("a@acme.test".into()), ..name_request(&ada, "Ada") };

    let masked_request =
        UpdateUserRequest { update_mask: mask(&["display_name"]), ..full_request.clone() };
    let user = update_user(&acme, masked_request).await;
    assert_eq!((user.display_name.as_str(), user.email.as_str()), ("Ada", "ada@acme.test"));
    let user = update_user(&acme, full_request).await;
    assert_eq!(user.email, "a@acme.test");
    acme.login(&acme.slug, "a@acme.test", PASSWORD).await;
    let empty_request =
        UpdateUserRequest { update_mask: mask(&["display_name"]), ..name_request(&ada, "") };
    assert_eq!(update_user(&acme, empty_request).await.display_name, "");

    // `email` is refused because it is in the mask but not set in the request.
    for paths in [["state"], ["email_verified"], ["tenant_id"], ["email"], ["password"]] {
        let request = UpdateUserRequest { update_mask: mask(&paths), ..update_request(&ada) };
        assert_refused(try_update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn of_concurrent_updates_with_one_etag_exactly_one_succeeds() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let user = update_user(&acme, name_request(&ada, "first")).await;
    let request_with_etag =
        |name: &str| UpdateUserRequest { etag: user.etag.clone(), ..name_request(&ada, name) };

    let calls = (0..5).map(|n| try_update(&acme, request_with_etag(&n.to_string())));
    let results = futures::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for result in results.into_iter().filter(Result::is_err) {
        assert_refused(result, Code::Aborted, "ETAG_MISMATCH");
    }
}

/// N20: a request must be unambiguous.
#[tokio::test]
async fn a_mask_may_contain_only_known_fields() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    update_user(&acme, name_request(&ada, "Ada")).await;

    for paths in [["*"].as_slice(), &["display_name", "*"], &["state"], &["user_id"], &[""]] {
        let request =
            UpdateUserRequest { update_mask: mask(paths), ..email_request(&ada, "a@acme.test") };
        let status = assert_refused(
            try_update(&acme, request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert!(status.message().contains("display_name, email"), "{status:?}");
    }
    let user = update_user(&acme, email_request(&ada, "a@acme.test")).await;
    assert_eq!((user.display_name.as_str(), user.email.as_str()), ("Ada", "a@acme.test"));
}

/// With the password or after a recent sign-in, a caller may change its email: see
/// `power/email.rs`.
#[tokio::test]
async fn a_caller_with_only_a_token_changes_its_own_name_but_not_its_email() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let age_sessions = "update sessions set created_at = created_at - interval '5 min'";
    sqlx::query(age_sessions)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the sign-in was five minutes ago");

    assert_eq!(update_user(&ada, name_request(&ada.user_id, "Ada")).await.display_name, "Ada");
    let full_request = UpdateUserRequest {
        email: Some("else@acme.test".into()),
        ..name_request(&ada.user_id, "Eve")
    };
    let masked_request =
        UpdateUserRequest { update_mask: mask(&["display_name", "email"]), ..full_request.clone() };
    for request in [email_request(&ada.user_id, "else@acme.test"), full_request, masked_request] {
        assert_refused(
            try_update(&ada, request).await,
            Code::PermissionDenied,
            "SIGN_IN_NOT_FRESH",
        );
    }
    for other in [acme.user_id.clone(), unknown_id()] {
        let result = try_update(&ada, name_request(&other, "Eve")).await;
        assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    assert_eq!(update_user(&acme, name_request(&ada.user_id, "Ada")).await.email, ada.email);
}

/// F04: the test covers the name and the email.
#[tokio::test]
async fn a_caller_cannot_change_a_user_of_a_higher_level() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["user:update"]).await;
    let peer = acme.create_member("peer", &["user:update"]).await;
    let boss = acme.create_user("boss@acme.test").await;
    let higher_role = acme.create_role("high", RoleLevel::Manager, &[]).await;
    acme.assign(&boss, &higher_role).await;

    for higher_user in [&boss, &acme.user_id] {
        for request in
            [name_request(higher_user, "x"), email_request(higher_user, "mine@acme.test")]
        {
            assert_refused(
                try_update(&ada, request).await,
                Code::PermissionDenied,
                "LEVEL_TOO_HIGH",
            );
        }
    }
    update_user(&ada, email_request(&peer.user_id, "new@acme.test")).await;
    update_user(&ada, email_request(&ada.user_id, "own@acme.test")).await;
}

#[tokio::test]
async fn a_new_email_is_unique_and_not_verified() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    acme.create_user("bob@acme.test").await;
    sqlx::query("update users set email_verified = true where user_id = $1::uuid")
        .bind(&ada)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("verified");

    let result = try_update(&acme, email_request(&ada, "BOB@acme.test")).await;
    assert_refused(result, Code::AlreadyExists, "EMAIL_TAKEN");
    assert!(
        update_user(&acme, email_request(&ada, "Ada@acme.test")).await.email_verified,
        "the same email"
    );
    assert!(!update_user(&acme, email_request(&ada, "new@acme.test")).await.email_verified);
    assert!(!update_user(&acme, email_request(&ada, "ada@acme.test")).await.email_verified);
}

/// D02: the responses are equal, so they do not reveal whether the user exists.
#[tokio::test]
async fn another_tenants_user_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);

    for user in [a.user_id.clone(), unknown_id()] {
        assert_refused(try_update(&b, name_request(&user, "x")).await, Code::NotFound, "NOT_FOUND");
    }
}
