//! UserService.UpdateUser

use tenantry::proto::v1::{RoleLevel, UpdateUserRequest, UpdateUserResponse, User};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, mask, refused, unknown_id};

fn change(user_id: &str) -> UpdateUserRequest {
    UpdateUserRequest { user_id: user_id.into(), ..UpdateUserRequest::default() }
}

fn named(user_id: &str, name: &str) -> UpdateUserRequest {
    UpdateUserRequest { display_name: Some(name.into()), ..change(user_id) }
}

fn mailed(user_id: &str, email: &str) -> UpdateUserRequest {
    UpdateUserRequest { email: Some(email.into()), ..change(user_id) }
}

async fn update(
    client: &Client,
    request: UpdateUserRequest,
) -> Result<Response<UpdateUserResponse>, Status> {
    client.users().update_user(request).await
}

async fn updated(client: &Client, request: UpdateUserRequest) -> User {
    update(client, request).await.expect("updated").into_inner().user.expect("the user")
}

#[tokio::test]
async fn the_mask_selects_the_changed_fields_and_without_one_the_set_fields_change() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let both = UpdateUserRequest { email: Some("a@acme.test".into()), ..named(&ada, "Ada") };

    let only = UpdateUserRequest { update_mask: mask(&["display_name"]), ..both.clone() };
    let user = updated(&acme, only).await;
    assert_eq!((user.display_name.as_str(), user.email.as_str()), ("Ada", "ada@acme.test"));
    let user = updated(&acme, both).await;
    assert_eq!(user.email, "a@acme.test");
    acme.login(&acme.slug, "a@acme.test", PASSWORD).await;
    let emptied = UpdateUserRequest { update_mask: mask(&["display_name"]), ..named(&ada, "") };
    assert_eq!(updated(&acme, emptied).await.display_name, "");

    for paths in [["state"], ["email_verified"], ["tenant_id"], ["email"], ["password"]] {
        let request = UpdateUserRequest { update_mask: mask(&paths), ..change(&ada) };
        refused(update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn of_concurrent_updates_with_one_etag_exactly_one_succeeds() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let first = updated(&acme, named(&ada, "first")).await;
    let with_etag =
        |name: &str| UpdateUserRequest { etag: first.etag.clone(), ..named(&ada, name) };

    let calls = (0..5).map(|at| update(&acme, with_etag(&at.to_string())));
    let results = futures::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for late in results.into_iter().filter(Result::is_err) {
        refused(late, Code::Aborted, "ETAG_MISMATCH");
    }
}

/// N20: a request must be unambiguous.
#[tokio::test]
async fn a_mask_must_name_known_fields_and_other_fields_stay_unchanged() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    updated(&acme, named(&ada, "Ada")).await;

    for paths in [["*"].as_slice(), &["display_name", "*"], &["state"], &["user_id"], &[""]] {
        let request = UpdateUserRequest { update_mask: mask(paths), ..mailed(&ada, "a@acme.test") };
        let status = refused(update(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
        assert!(status.message().contains("display_name, email"), "{status:?}");
    }
    let user = updated(&acme, mailed(&ada, "a@acme.test")).await;
    assert_eq!((user.display_name.as_str(), user.email.as_str()), ("Ada", "a@acme.test"));
}

/// With a password or a recent sign-in, a caller may change its email: see `power/email.rs`.
#[tokio::test]
async fn a_caller_changes_its_own_name_but_not_its_email_with_only_a_token() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    let earlier = "update sessions set created_at = created_at - interval '5 min'";
    sqlx::query(earlier).execute(&mut app.owner().await).await.expect("moved");

    assert_eq!(updated(&ada, named(&ada.user_id, "Ada")).await.display_name, "Ada");
    let both =
        UpdateUserRequest { email: Some("else@acme.test".into()), ..named(&ada.user_id, "Eve") };
    let masked =
        UpdateUserRequest { update_mask: mask(&["display_name", "email"]), ..both.clone() };
    for request in [mailed(&ada.user_id, "else@acme.test"), both, masked] {
        refused(update(&ada, request).await, Code::PermissionDenied, "SIGN_IN_NOT_FRESH");
    }
    for other in [acme.user_id.clone(), unknown_id()] {
        let result = update(&ada, named(&other, "Eve")).await;
        refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    assert_eq!(updated(&acme, named(&ada.user_id, "Ada")).await.email, ada.email);
}

/// F04: a caller cannot change anything above its own rights.
#[tokio::test]
async fn nobody_changes_a_user_above_its_level() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["user:update"]).await;
    let peer = acme.member("peer", &["user:update"]).await;
    let boss = acme.create_user("boss@acme.test").await;
    let high = acme.create_role("high", RoleLevel::Manager, &[]).await;
    acme.assign(&boss, &high).await;

    for above in [&boss, &acme.user_id] {
        for request in [named(above, "x"), mailed(above, "mine@acme.test")] {
            refused(update(&ada, request).await, Code::PermissionDenied, "LEVEL_TOO_HIGH");
        }
    }
    updated(&ada, mailed(&peer.user_id, "new@acme.test")).await;
    updated(&ada, mailed(&ada.user_id, "own@acme.test")).await;
}

#[tokio::test]
async fn a_new_email_is_unique_and_not_verified() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    acme.create_user("bob@acme.test").await;
    sqlx::query("update users set email_verified = true where user_id = $1::uuid")
        .bind(&ada)
        .execute(&mut app.owner().await)
        .await
        .expect("verified");

    let taken = update(&acme, mailed(&ada, "BOB@acme.test")).await;
    refused(taken, Code::AlreadyExists, "EMAIL_TAKEN");
    assert!(updated(&acme, mailed(&ada, "Ada@acme.test")).await.email_verified, "the same email");
    assert!(!updated(&acme, mailed(&ada, "new@acme.test")).await.email_verified);
    assert!(!updated(&acme, mailed(&ada, "ada@acme.test")).await.email_verified);
}

/// D08: an object of another tenant gets the same answer as an unknown object.
#[tokio::test]
async fn another_tenants_user_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);

    for user in [a.user_id.clone(), unknown_id()] {
        refused(update(&b, named(&user, "x")).await, Code::NotFound, "NOT_FOUND");
    }
}
