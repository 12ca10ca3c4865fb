//! UserService: creating and finding users

use tenantry::proto::v1::{
    CreateUserRequest, CreateUserResponse, GetUserRequest, LoginRequest, LookupUserRequest, User,
    UserState, create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, refused, unknown_id};

pub fn user(email: &str) -> CreateUserRequest {
    CreateUserRequest {
        email: email.into(),
        display_name: "Ada Lovelace".into(),
        credential: Some(Credential::Password(PASSWORD.into())),
        ..CreateUserRequest::default()
    }
}

async fn create(
    client: &Client,
    request: CreateUserRequest,
) -> Result<Response<CreateUserResponse>, Status> {
    client.users().create_user(request).await
}

async fn created(client: &Client, request: CreateUserRequest) -> User {
    create(client, request).await.expect("a user is made").into_inner().user.expect("the user")
}

#[tokio::test]
async fn a_user_is_created_as_requested_and_found_again() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;

    let made = created(&acme, user("Ada@Acme.test")).await;
    assert_eq!((made.tenant_id.as_str(), made.email.as_str()), (&*acme.tenant_id, "Ada@Acme.test"));
    assert_eq!((made.display_name.as_str(), made.state()), ("Ada Lovelace", UserState::Active));
    assert!(!made.email_verified && !made.etag.is_empty());
    let get = GetUserRequest { user_id: made.id.clone() };
    let got = acme.users().get_user(get).await.expect("found").into_inner().user;
    assert_eq!(got.as_ref(), Some(&made));
    for email in ["ada@acme.test", "ADA@ACME.TEST"] {
        let lookup = LookupUserRequest { email: email.into() };
        let found = acme.users().lookup_user(lookup).await.expect("found").into_inner().user;
        assert_eq!(found, got);
    }
    acme.login(&acme.slug, "ada@ACME.test", PASSWORD).await;
}

#[tokio::test]
async fn a_new_user_has_no_permissions() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;

    assert!(!ada.may("", "tenant:read").await);
    let result = ada.users().list_users(tenantry::proto::v1::ListUsersRequest::default()).await;
    refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_user_without_a_password_cannot_sign_in() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    acme.create_user_without_password("ada@acme.test").await;

    for password in [PASSWORD, "x"] {
        let request = LoginRequest {
            email: "ada@acme.test".into(),
            password: password.into(),
            organization_slug: acme.slug.clone(),
            ..LoginRequest::default()
        };
        let result = app.anonymous().auth().login(request).await;
        refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn an_email_is_unique_in_its_tenant_in_any_case() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    created(&a, user("ada@both.test")).await;

    for same in ["ada@both.test", "ADA@both.TEST", "Ada@Both.test"] {
        refused(create(&a, user(same)).await, Code::AlreadyExists, "EMAIL_TAKEN");
    }
    created(&b, user("ada@both.test")).await;
    created(&a, user("ada+x@both.test")).await;
}

#[tokio::test]
async fn twenty_concurrent_creations_with_one_email_create_one_user() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let without = |email: &str| CreateUserRequest { credential: None, ..user(email) };

    let calls = (0..20).map(|at| {
        let email = if at % 2 == 0 { "ada@acme.test" } else { "Ada@acme.test" };
        create(&acme, without(email))
    });
    let results = futures::future::join_all(calls).await;
    let (made, not): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for result in not {
        refused(result, Code::AlreadyExists, "EMAIL_TAKEN");
    }
}

#[tokio::test]
async fn a_request_id_makes_a_retry_safe() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let once = || CreateUserRequest { request_id: "once".into(), ..user("ada@acme.test") };

    let calls = (0..20).map(|_| created(&acme, CreateUserRequest { credential: None, ..once() }));
    let users = futures::future::join_all(calls).await;
    assert!(users.iter().all(|user| *user == users[0]));
    let other = CreateUserRequest { display_name: "Bob".into(), ..once() };
    refused(create(&acme, other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn each_malformed_user_is_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let long = format!("{}@acme.test", "a".repeat(250));
    let password = |password: &str| CreateUserRequest {
        credential: Some(Credential::Password(password.into())),
        ..user("ada@acme.test")
    };
    let name = |name: &str| CreateUserRequest { display_name: name.into(), ..user("a@acme.test") };

    for request in [
        user(""),
        user("ada"),
        user("ada@"),
        user("@acme.test"),
        user("ada@acme.test\n"),
        user("ada\0@acme.test"),
        user("a b@acme.test"),
        user(&long),
        name(&"x".repeat(201)),
        name("Ada\0"),
        password(""),
        password("1234567"),
        password(&"x".repeat(1025)),
    ] {
        let shown = format!("{request:?}");
        let result = create(&acme, request).await;
        let status = result.expect_err(&shown);
        assert_eq!(status.code(), Code::InvalidArgument, "{shown} {status:?}");
        assert_eq!(crate::harness::reason(&status), "INVALID_FIELDS", "{shown}");
    }
    for common in ["ada@acme.test", "acmeacme", "Sunshine"] {
        let result = create(&acme, password(common)).await;
        refused(result, Code::InvalidArgument, "PASSWORD_TOO_COMMON");
    }
}

/// D08: an object of another tenant gets the same answer as an unknown object.
#[tokio::test]
async fn another_tenants_user_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);

    let mut seen = Vec::new();
    for user_id in [a.user_id.clone(), unknown_id()] {
        let result = b.users().get_user(GetUserRequest { user_id }).await;
        let status = refused(result, Code::NotFound, "NOT_FOUND");
        seen.push((status.message().to_owned(), status.details().to_vec()));
    }
    for email in [a.email.clone(), "nobody@b.test".into()] {
        let result = b.users().lookup_user(LookupUserRequest { email }).await;
        let status = refused(result, Code::NotFound, "NOT_FOUND");
        seen.push((status.message().to_owned(), status.details().to_vec()));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn a_caller_may_read_itself_and_needs_a_permission_for_others() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;

    let own = GetUserRequest { user_id: ada.user_id.clone() };
    let found = ada.users().get_user(own).await.expect("itself").into_inner().user;
    assert_eq!(found.expect("the user").email, ada.email);
    for user_id in [acme.user_id.clone(), unknown_id()] {
        let result = ada.users().get_user(GetUserRequest { user_id }).await;
        refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}
