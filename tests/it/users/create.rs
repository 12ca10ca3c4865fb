//! UserService: creation and search of users

use tenantry::proto::v1::{
    CreateUserRequest, CreateUserResponse, GetUserRequest, LoginRequest, LookupUserRequest,
    RegisterRequest, User, UserState, create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, reason, unknown_id};

pub fn create_request(email: &str) -> CreateUserRequest {
    CreateUserRequest {
        email: email.into(),
        display_name: "Ada Lovelace".into(),
        credential: Some(Credential::Password(PASSWORD.into())),
        ..CreateUserRequest::default()
    }
}

async fn try_create(
    client: &Client,
    request: CreateUserRequest,
) -> Result<Response<CreateUserResponse>, Status> {
    client.users().create_user(request).await
}

async fn create_user(client: &Client, request: CreateUserRequest) -> User {
    try_create(client, request).await.expect("created").into_inner().user.expect("the user")
}

#[tokio::test]
async fn a_created_user_can_be_found_by_id_and_email() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let user = create_user(&acme, create_request("Ada@Acme.test")).await;
    assert_eq!((user.tenant_id.as_str(), user.email.as_str()), (&*acme.tenant_id, "Ada@Acme.test"));
    assert_eq!((user.display_name.as_str(), user.state()), ("Ada Lovelace", UserState::Active));
    assert!(!user.email_verified && !user.etag.is_empty());
    let request = GetUserRequest { user_id: user.id.clone() };
    let found_user = acme.users().get_user(request).await.expect("found").into_inner().user;
    assert_eq!(found_user.as_ref(), Some(&user));
    for email in ["ada@acme.test", "ADA@ACME.TEST"] {
        let request = LookupUserRequest { email: email.into() };
        let looked_up_user =
            acme.users().lookup_user(request).await.expect("found").into_inner().user;
        assert_eq!(looked_up_user, found_user);
    }
    acme.login(&acme.slug, "ada@ACME.test", PASSWORD).await;
}

#[tokio::test]
async fn a_new_user_has_no_permissions() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;

    assert!(!ada.may("tenant:read").await);
    let result = ada.users().list_users(tenantry::proto::v1::ListUsersRequest::default()).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_user_without_a_password_cannot_sign_in() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    acme.create_user_without_password("ada@acme.test").await;

    for password in [PASSWORD, "x"] {
        let request = LoginRequest {
            email: "ada@acme.test".into(),
            password: password.into(),
            organization_slug: acme.slug.clone(),
            ..LoginRequest::default()
        };
        let result = app.anonymous().auth().login(request).await;
        assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn an_email_is_unique_in_its_tenant_in_any_case() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_user(&a, create_request("ada@both.test")).await;

    for same_email in ["ada@both.test", "ADA@both.TEST", "Ada@Both.test"] {
        assert_refused(
            try_create(&a, create_request(same_email)).await,
            Code::AlreadyExists,
            "EMAIL_TAKEN",
        );
    }
    create_user(&b, create_request("ada@both.test")).await;
    create_user(&a, create_request("ada+x@both.test")).await;
}

#[tokio::test]
async fn twenty_concurrent_creations_with_one_email_create_one_user() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request_without_password =
        |email: &str| CreateUserRequest { credential: None, ..create_request(email) };

    let calls = (0..20).map(|n| {
        let email = if n % 2 == 0 { "ada@acme.test" } else { "Ada@acme.test" };
        try_create(&acme, request_without_password(email))
    });
    let results = futures::future::join_all(calls).await;
    let (created, refused_results): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(created.len(), 1);
    for result in refused_results {
        assert_refused(result, Code::AlreadyExists, "EMAIL_TAKEN");
    }
}

#[tokio::test]
async fn a_request_id_makes_a_retry_safe() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request =
        || CreateUserRequest { request_id: "once".into(), ..create_request("ada@acme.test") };

    let calls =
        (0..20).map(|_| create_user(&acme, CreateUserRequest { credential: None, ..request() }));
    let users = futures::future::join_all(calls).await;
    assert!(users.iter().all(|user| *user == users[0]));
    let changed_request = CreateUserRequest { display_name: "Bob".into(), ..request() };
    assert_refused(
        try_create(&acme, changed_request).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
}

#[tokio::test]
async fn each_malformed_user_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let long_email = format!("{}@acme.test", "a".repeat(250));
    let password_request = |password: &str| CreateUserRequest {
        credential: Some(Credential::Password(password.into())),
        ..create_request("ada@acme.test")
    };
    let name_request = |name: &str| CreateUserRequest {
        display_name: name.into(),
        ..create_request("a@acme.test")
    };

    // A display name has at most 200 characters. A password has at least 8 characters and at most
    // 1024 bytes.
    for request in [
        create_request(""),
        create_request("ada"),
        create_request("ada@"),
        create_request("@acme.test"),
        create_request("ada@acme.test\n"),
        create_request("ada\0@acme.test"),
        create_request("a b@acme.test"),
        create_request(&long_email),
        name_request(&"x".repeat(201)),
        name_request("Ada\0"),
        password_request(""),
        password_request("1234567"),
        password_request(&"x".repeat(1025)),
    ] {
        let request_text = format!("{request:?}");
        let result = try_create(&acme, request).await;
        let status = result.expect_err(&request_text);
        assert_eq!(status.code(), Code::InvalidArgument, "{request_text} {status:?}");
        assert_eq!(crate::harness::reason(&status), "INVALID_FIELDS", "{request_text}");
    }
    for common_password in ["ada@acme.test", "acmeacme", "Sunshine"] {
        let result = try_create(&acme, password_request(common_password)).await;
        assert_refused(result, Code::InvalidArgument, "PASSWORD_TOO_COMMON");
    }
}

/// D02: the test covers the lookup by id and by email.
#[tokio::test]
async fn another_tenants_user_looks_like_an_unknown_one() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);

    let mut refusals = Vec::new();
    for user_id in [a.user_id.clone(), unknown_id()] {
        let result = b.users().get_user(GetUserRequest { user_id }).await;
        let status = assert_refused(result, Code::NotFound, "NOT_FOUND");
        refusals.push((status.message().to_owned(), status.details().to_vec()));
    }
    for email in [a.email.clone(), "nobody@b.test".into()] {
        let result = b.users().lookup_user(LookupUserRequest { email }).await;
        let status = assert_refused(result, Code::NotFound, "NOT_FOUND");
        refusals.push((status.message().to_owned(), status.details().to_vec()));
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1);
}

#[tokio::test]
async fn a_caller_without_a_permission_may_read_only_itself() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;

    let request = GetUserRequest { user_id: ada.user_id.clone() };
    let user = ada.users().get_user(request).await.expect("a response").into_inner().user;
    assert_eq!(user.expect("the user").email, ada.email);
    for user_id in [acme.user_id.clone(), unknown_id()] {
        let result = ada.users().get_user(GetUserRequest { user_id }).await;
        assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}

/// N43: an email that no mail server accepts is refused wherever an email is stored.
#[tokio::test]
async fn only_an_address_of_mail_servers_can_be_stored() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme-addresses").await;
    let ada = acme.create_user("ada@acme.test").await;
    for email in ["a..b@acme.test", ".a@acme.test", "a@acme_test", "a\u{202e}@acme.test", "a@b."] {
        let result = try_create(&acme, create_request(email)).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
        let result = acme.change_email(&ada, email).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
        let request = RegisterRequest {
            email: email.into(),
            password: PASSWORD.into(),
            organization_name: "Any company".into(),
            ..RegisterRequest::default()
        };
        let result = app.anonymous().auth().register(request).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
        // An earlier version may have stored such an email. So a sign-in and a lookup accept the
        // email, and find no user here.
        if email != "a@b." {
            let result = acme.try_login(&acme.slug, email, PASSWORD).await;
            assert_eq!(reason(&result.err().expect("refused")), "INVALID_CREDENTIALS");
            let result = acme.users().lookup_user(LookupUserRequest { email: email.into() }).await;
            assert_refused(result, Code::NotFound, "NOT_FOUND");
        }
    }
}

/// N43: an international email is found in each of its forms.
#[tokio::test]
async fn the_forms_of_an_international_email_are_one_email() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme-international").await;
    let user = create_user(&acme, create_request("Zoë@Bücher.example")).await;
    assert_eq!(user.email, "Zoë@Bücher.example");
    for email in ["zoë@xn--bcher-kva.example", "ZOE\u{308}@BÜCHER.EXAMPLE"] {
        let result = try_create(&acme, create_request(email)).await;
        assert_refused(result, Code::AlreadyExists, "EMAIL_TAKEN");
        let request = LookupUserRequest { email: email.into() };
        let found_user = acme.users().lookup_user(request).await.expect("found").into_inner().user;
        assert_eq!(found_user.expect("the user").id, user.id);
        acme.login(&acme.slug, email, PASSWORD).await;
    }
}
