//! AuthService.Register: the registration of a new tenant.

use tenantry::proto::v1::{RegisterRequest, RegisterResponse, UserState};
use tonic::{Code, Response, Status};

use crate::harness::{Client, Method, PASSWORD, TestApp, assert_refused, methods, reason};

/// A request that registers a new tenant.
pub fn tenant_request(name: &str, slug: &str) -> RegisterRequest {
    RegisterRequest {
        email: "ada@new.test".into(),
        password: PASSWORD.into(),
        organization_name: name.into(),
        organization_slug: slug.into(),
        ..RegisterRequest::default()
    }
}

pub async fn register(
    client: &Client,
    request: RegisterRequest,
) -> Result<Response<RegisterResponse>, Status> {
    client.auth().register(request).await
}

pub async fn register_successfully(client: &Client, request: RegisterRequest) -> RegisterResponse {
    register(client, request).await.expect("registered").into_inner()
}

/// Total number of rows in the tables that a registration writes to.
async fn row_count(app: &TestApp) -> i64 {
    let sql = "select (select count(*) from tenants) + (select count(*) from users)
        + (select count(*) from credentials) + (select count(*) from roles)
        + (select count(*) from role_assignments) + (select count(*) from audit_events)
        + (select count(*) from idempotency_records)";
    sqlx::query_scalar(sql).fetch_one(&mut app.owner_connection().await).await.expect("a count")
}

#[tokio::test]
async fn registration_creates_the_tenant_and_its_first_administrator() {
    let app = TestApp::spawn().await;
    let reply = register_successfully(&app.anonymous(), tenant_request("Acme, Inc.", "")).await;

    let (user, tenant) = (reply.user.expect("a user"), reply.tenant.expect("a tenant"));
    assert_eq!((tenant.name.as_str(), tenant.slug.as_str()), ("Acme, Inc.", "acme-inc"));
    assert_eq!((&user.tenant_id, user.state()), (&tenant.id, UserState::Active));
    assert!(!user.email_verified);
    let ada = app.anonymous().login("acme-inc", "ada@new.test", PASSWORD).await;
    assert_eq!((ada.user_id.as_str(), ada.tenant_id.as_str()), (&*user.id, &*tenant.id));
    assert!(ada.may("any:thing").await);
    assert_eq!(ada.role_id("org_admin").await, ada.system_role("org_admin").await);
    let event = &app.audit_events("tenant_created").await[0];
    assert_eq!(event.tenant_id.to_string(), tenant.id);
}

#[tokio::test]
async fn a_failed_registration_leaves_no_rows() {
    let app = TestApp::spawn().await;
    app.create_tenant("taken").await;
    let count_before = row_count(&app).await;
    let anonymous = app.anonymous();
    let changed_request = |change: &dyn Fn(&mut RegisterRequest)| {
        let mut request = tenant_request("New", "new");
        change(&mut request);
        request
    };

    for (request, code, expected_reason) in [
        (tenant_request("New", "taken"), Code::AlreadyExists, "SLUG_TAKEN"),
        (tenant_request("Taken", ""), Code::AlreadyExists, "SLUG_TAKEN"),
        (tenant_request("Platform", ""), Code::AlreadyExists, "SLUG_TAKEN"),
        (tenant_request("  ", "new"), Code::InvalidArgument, "INVALID_FIELDS"),
        (tenant_request("New", "New"), Code::InvalidArgument, "INVALID_FIELDS"),
        (tenant_request("New", "n w"), Code::InvalidArgument, "INVALID_FIELDS"),
        // A slug has at most 63 characters, and a name has at most 200.
        (tenant_request("New", &"n".repeat(64)), Code::InvalidArgument, "INVALID_FIELDS"),
        (tenant_request(&"n".repeat(201), ""), Code::InvalidArgument, "INVALID_FIELDS"),
        (tenant_request("New\0", ""), Code::InvalidArgument, "INVALID_FIELDS"),
        (
            changed_request(&|r| r.password = "short".into()),
            Code::InvalidArgument,
            "INVALID_FIELDS",
        ),
        (changed_request(&|r| r.email = "ada".into()), Code::InvalidArgument, "INVALID_FIELDS"),
        (
            changed_request(&|r| r.display_name = "a\0".into()),
            Code::InvalidArgument,
            "INVALID_FIELDS",
        ),
        (tenant_request("", ""), Code::InvalidArgument, "TENANT_REQUIRED"),
    ] {
        let case = format!("{request:?}");
        let status = register(&anonymous, request).await.expect_err(&case);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected_reason), "{case}");
    }
    assert_eq!(row_count(&app).await, count_before);
}

#[tokio::test]
async fn of_concurrent_registrations_with_one_slug_exactly_one_succeeds() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    let calls = (0..10).map(|number| {
        let email = format!("u{number}@new.test");
        register(&anonymous, RegisterRequest { email, ..tenant_request("Acme", "acme") })
    });
    let results = futures::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for result in results.into_iter().filter(Result::is_err) {
        assert_refused(result, Code::AlreadyExists, "SLUG_TAKEN");
    }
    // `count` needs an id as the parameter of the query. No user has this id.
    let sql = "select count(*) from users where user_id <> $1";
    assert_eq!(app.count(sql, &crate::harness::unknown_id()).await, 1);
}

#[tokio::test]
async fn the_slug_of_the_platform_is_reserved_before_and_after_the_platform_is_created() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    let reply_before = register(&anonymous, tenant_request("Mine", "platform")).await;
    assert_refused(reply_before, Code::AlreadyExists, "SLUG_TAKEN");
    app.platform_admin().await;
    let reply_after = register(&anonymous, tenant_request("Mine", "platform")).await;
    assert_refused(reply_after, Code::AlreadyExists, "SLUG_TAKEN");
}

#[tokio::test]
async fn a_slug_that_is_a_uuid_is_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let anonymous = app.anonymous();

    for id in [&acme.tenant_id, "00000000-0000-0000-0000-000000000000"] {
        for request in [tenant_request("Acme", id), tenant_request(id, "")] {
            assert_refused(
                register(&anonymous, request).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
        }
    }
}

#[tokio::test]
async fn a_retry_gets_the_first_result() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let request_with_id =
        || RegisterRequest { request_id: "once".into(), ..tenant_request("Acme", "acme") };

    let calls = (0..5).map(|_| register_successfully(&anonymous, request_with_id()));
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|result| *result == results[0]));
    assert_eq!(register_successfully(&anonymous, request_with_id()).await, results[0]);
    let changed_request = RegisterRequest { email: "eve@new.test".into(), ..request_with_id() };
    assert_refused(
        register(&anonymous, changed_request).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
    let reply = register(&anonymous, tenant_request("Acme", "acme")).await;
    assert_refused(reply, Code::AlreadyExists, "SLUG_TAKEN");
}

#[tokio::test]
async fn with_closed_registration_no_tenant_is_created() {
    let app = TestApp::with_settings(|values| values.set("TENANT_REGISTRATION", "closed")).await;
    let anonymous = app.anonymous();

    let result = register(&anonymous, tenant_request("Acme", "acme")).await;
    assert_refused(result, Code::PermissionDenied, "REGISTRATION_CLOSED");
    assert_eq!(row_count(&app).await, 0);
}

/// B20: unknown fields of a request set no column.
#[tokio::test]
async fn unknown_fields_change_nothing() {
    let app = TestApp::spawn().await;
    let method: Method =
        methods().into_iter().find(|m| m.path().ends_with("/Register")).expect("the method");
    let mut bytes = prost::Message::encode_to_vec(&tenant_request("Acme", "acme"));
    // For each number from 7 to 39, a varint field with this number and a text field with this
    // number plus 100.
    for field in 7_u32..40 {
        prost::encoding::uint32::encode(field, &1, &mut bytes);
        prost::encoding::string::encode(field + 100, &"true".to_owned(), &mut bytes);
    }

    method.call_raw(&app.anonymous(), bytes).await.expect("registered");
    let ada = app.anonymous().login("acme", "ada@new.test", PASSWORD).await;
    let row: (bool, String, bool) = sqlx::query_as(
        "select email_verified, u.state, is_platform from users u join tenants using (tenant_id)
         where user_id = $1::uuid",
    )
    .bind(&ada.user_id)
    .fetch_one(&mut app.owner_connection().await)
    .await
    .expect("the row");
    assert_eq!(row, (false, "active".into(), false));
}
