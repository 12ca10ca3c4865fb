//! Retries with a `request_id`, for all RPCs that accept one.

use tenantry::proto::v1::{
    AssignRoleRequest, CreateApiKeyRequest, CreateRoleRequest, CreateServiceAccountRequest,
    CreateTenantRequest, CreateUserRequest, DeleteRoleRequest, DeleteServiceAccountRequest,
    DeleteTenantRequest, DeleteUserRequest, RegisterRequest, RoleLevel,
    create_user_request::Credential,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, refused, unknown_id, until};

const ONCE: &str = "once";

async fn records(app: &TestApp) -> i64 {
    let count = "select count(*) from idempotency_records";
    sqlx::query_scalar(count).fetch_one(&mut app.owner().await).await.expect("a count")
}

fn user(email: &str) -> CreateUserRequest {
    CreateUserRequest {
        email: email.into(),
        display_name: "Ada".into(),
        request_id: ONCE.into(),
        ..CreateUserRequest::default()
    }
}

async fn create_user(client: &Client, request: CreateUserRequest) -> String {
    let reply = client.users().create_user(request).await.expect("a user is made");
    reply.into_inner().user.expect("the user").id
}

/// N04: a request id identifies one request of one caller.
#[tokio::test]
async fn an_unassigned_role_can_be_assigned_again_with_the_same_request_id() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let request = AssignRoleRequest {
        user_id: ada.clone(),
        role_id: role.clone(),
        request_id: ONCE.into(),
        ..AssignRoleRequest::default()
    };
    for _ in 0..2 {
        let assign = || acme.roles();
        let first = assign().assign_role(request.clone()).await.expect("given").into_inner();
        let again = assign().assign_role(request.clone()).await.expect("a retry").into_inner();
        assert_eq!(again, first);
        assert!(acme.may(&ada, "doc:read").await);
        acme.unassign(&ada, &role).await;
        assert!(!acme.may(&ada, "doc:read").await);
    }
}

/// N04: a request id identifies one request of one caller.
#[tokio::test]
async fn after_a_deletion_the_same_request_id_creates_a_new_object() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    let mut made = Vec::new();
    for _ in 0..2 {
        let user_id = create_user(&acme, user("ada@acme.test")).await;
        let request = CreateRoleRequest {
            name: "ops".into(),
            level: RoleLevel::Member.into(),
            request_id: ONCE.into(),
            ..CreateRoleRequest::default()
        };
        let role = acme.roles().create_role(request).await.expect("a role").into_inner();
        let role_id = role.role.expect("the role").id;
        let request = CreateServiceAccountRequest {
            name: "billing".into(),
            request_id: ONCE.into(),
            ..CreateServiceAccountRequest::default()
        };
        let account = acme.service_accounts().create_service_account(request).await;
        let account = account.expect("an account").into_inner().service_account;
        let service_account_id = account.expect("the account").id;
        let request = CreateApiKeyRequest {
            service_account_id: service_account_id.clone(),
            request_id: ONCE.into(),
            ..CreateApiKeyRequest::default()
        };
        let mut keys = Vec::new();
        for _ in 0..2 {
            let key = acme.service_accounts().create_api_key(request.clone()).await;
            keys.push(key.expect("a key").into_inner().api_key.expect("the key").id);
            acme.revoke_api_key(keys.last().expect("a key")).await;
        }
        assert_ne!(keys[0], keys[1], "a revoked key is not answered again");
        let request = CreateTenantRequest {
            name: "New".into(),
            request_id: ONCE.into(),
            ..CreateTenantRequest::default()
        };
        let tenant = root.tenants().create_tenant(request).await.expect("a tenant").into_inner();
        let tenant = tenant.tenant.expect("the tenant").id;
        made.push([user_id.clone(), role_id.clone(), service_account_id.clone(), tenant.clone()]);

        let request = DeleteUserRequest { user_id, ..DeleteUserRequest::default() };
        acme.users().delete_user(request).await.expect("deleted");
        let request = DeleteRoleRequest { role_id, ..DeleteRoleRequest::default() };
        acme.roles().delete_role(request).await.expect("deleted");
        let request = DeleteServiceAccountRequest {
            service_account_id,
            ..DeleteServiceAccountRequest::default()
        };
        acme.service_accounts().delete_service_account(request).await.expect("deleted");
        let request = DeleteTenantRequest { tenant, ..DeleteTenantRequest::default() };
        root.tenants().delete_tenant(request).await.expect("deleted");
        assert_eq!(records(&app).await, 0, "records remain");
    }
    for (first, second) in made[0].iter().zip(&made[1]) {
        assert_ne!(first, second);
    }
}

/// N04: a request id identifies one request of one caller.
#[tokio::test]
async fn records_are_deleted_with_their_caller() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["user:create"]).await;
    create_user(&ada, user("bob@acme.test")).await;
    assert_eq!(records(&app).await, 1);
    let request = DeleteUserRequest { user_id: ada.user_id, ..DeleteUserRequest::default() };
    acme.users().delete_user(request).await.expect("deleted");
    assert_eq!(records(&app).await, 0);
}

/// N04: the same id with another password, or with another hash, is another request.
#[tokio::test]
async fn a_secret_is_part_of_the_request() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let with =
        |credential| CreateUserRequest { credential: Some(credential), ..user("ada@acme.test") };
    let password = |text: &str| with(Credential::Password(text.into()));
    let hash = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".to_owned();
    create_user(&acme, password(PASSWORD)).await;
    create_user(&acme, password(PASSWORD)).await;
    for other in [
        password("another horse battery staple"),
        with(Credential::PasswordHash(hash)),
        user("ada@acme.test"),
    ] {
        let reply = acme.users().create_user(other).await;
        refused(reply, Code::InvalidArgument, "REQUEST_ID_REUSED");
    }

    let register = |password: &str| RegisterRequest {
        email: "ada@new.test".into(),
        password: password.into(),
        organization_name: "New".into(),
        request_id: ONCE.into(),
        ..RegisterRequest::default()
    };
    for _ in 0..2 {
        app.anonymous().auth().register(register(PASSWORD)).await.expect("registered");
    }
    let reply = app.anonymous().auth().register(register("another horse battery staple")).await;
    refused(reply, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

/// N04: a request id identifies one request of one caller.
#[tokio::test]
async fn the_request_id_of_an_api_key_belongs_to_its_caller() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["api_key:create"]).await;
    let account = acme.create_service_account("billing", &[]).await;
    let request = || CreateApiKeyRequest {
        service_account_id: account.clone(),
        request_id: ONCE.into(),
        ..CreateApiKeyRequest::default()
    };
    let mut keys = Vec::new();
    for client in [&acme, &ada] {
        let reply = client.service_accounts().create_api_key(request()).await;
        keys.push(reply.expect("a key").into_inner().api_key.expect("the key").id);
    }
    assert_ne!(keys[0], keys[1]);
    let other = CreateApiKeyRequest { name: "other".into(), ..request() };
    let reply = acme.service_accounts().create_api_key(other).await;
    refused(reply, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

/// N04: a request id identifies one request of one caller.
#[tokio::test]
async fn a_record_expires_after_a_day() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    create_user(&acme, user("ada@acme.test")).await;
    let age = "update idempotency_records set created_at = created_at - interval '24 hours'";
    sqlx::query(age).execute(&mut app.owner().await).await.expect("aged");
    // An expired record is ignored, and a new one replaces it.
    let bob = create_user(&acme, user("bob@acme.test")).await;
    assert_eq!(create_user(&acme, user("bob@acme.test")).await, bob);
    assert_eq!(records(&app).await, 1);

    // A server that starts deletes expired records in batches.
    let fill = "insert into idempotency_records
            (tenant_id, actor_id, method, request_id, fingerprint, response, created_at)
        select tenant_id, gen_random_uuid(), '', n::text, '', '', now() - interval '25 hours'
        from tenants, generate_series(1, 2500) n";
    sqlx::query(fill).execute(&mut app.owner().await).await.expect("rows");
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    until(10, || async { records(&app).await == 1 }).await;
    until(10, || async {
        second_replica.metric("tenantry_requests_trimmed_total").await == Some(2500.0)
    })
    .await;
    assert_eq!(create_user(&acme, user("bob@acme.test")).await, bob);
    acme.create_user_without_password(&format!("{}@acme.test", unknown_id())).await;
}
