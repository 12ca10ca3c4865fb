//! Retries with a `request_id`, for all RPCs that accept one.

use tenantry::proto::v1::{
    AssignRoleRequest, CreateApiKeyRequest, CreateRoleRequest, CreateServiceAccountRequest,
    CreateTenantRequest, CreateUserRequest, DeleteRoleRequest, DeleteServiceAccountRequest,
    DeleteTenantRequest, DeleteUserRequest, RegisterRequest, RoleLevel,
    create_user_request::Credential,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, wait_until};

const REQUEST_ID: &str = "once";

async fn record_count(app: &TestApp) -> i64 {
    let count = "select count(*) from idempotency_records";
    sqlx::query_scalar(count).fetch_one(&mut app.owner_connection().await).await.expect("a count")
}

fn user_request(email: &str) -> CreateUserRequest {
    CreateUserRequest {
        email: email.into(),
        display_name: "Ada".into(),
        request_id: REQUEST_ID.into(),
        ..CreateUserRequest::default()
    }
}

async fn create_user(client: &Client, request: CreateUserRequest) -> String {
    let reply = client.users().create_user(request).await.expect("the user is created");
    reply.into_inner().user.expect("the user").id
}

/// N04: the earlier result is not returned after the assignment has ended.
#[tokio::test]
async fn after_unassign_a_role_can_be_assigned_again_with_the_same_request_id() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    let request = AssignRoleRequest {
        user_id: ada.clone(),
        role_id: role.clone(),
        request_id: REQUEST_ID.into(),
        ..AssignRoleRequest::default()
    };
    for _ in 0..2 {
        let roles = || acme.roles();
        let first_response =
            roles().assign_role(request.clone()).await.expect("assigned").into_inner();
        let retry_response =
            roles().assign_role(request.clone()).await.expect("retried").into_inner();
        assert_eq!(retry_response, first_response);
        assert!(acme.user_may(&ada, "doc:read").await);
        acme.unassign(&ada, &role).await;
        assert!(!acme.user_may(&ada, "doc:read").await);
    }
}

/// N04: the record of a request is deleted with the object that the request created.
#[tokio::test]
async fn after_a_deletion_the_same_request_id_creates_a_new_object() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let mut created_ids = Vec::new();
    for _ in 0..2 {
        let user_id = create_user(&acme, user_request("ada@acme.test")).await;
        let request = CreateRoleRequest {
            name: "ops".into(),
            level: RoleLevel::Member.into(),
            request_id: REQUEST_ID.into(),
            ..CreateRoleRequest::default()
        };
        let role = acme.roles().create_role(request).await.expect("a role").into_inner();
        let role_id = role.role.expect("the role").id;
        let request = CreateServiceAccountRequest {
            name: "billing".into(),
            request_id: REQUEST_ID.into(),
            ..CreateServiceAccountRequest::default()
        };
        let account = acme.service_accounts().create_service_account(request).await;
        let account = account.expect("an account").into_inner().service_account;
        let service_account_id = account.expect("the account").id;
        let request = CreateApiKeyRequest {
            service_account_id: service_account_id.clone(),
            request_id: REQUEST_ID.into(),
            ..CreateApiKeyRequest::default()
        };
        let mut keys = Vec::new();
        for _ in 0..2 {
            let key = acme.service_accounts().create_api_key(request.clone()).await;
            keys.push(key.expect("a key").into_inner().api_key.expect("the key").id);
            acme.revoke_api_key(keys.last().expect("a key")).await;
        }
        assert_ne!(keys[0], keys[1], "the second response has a new key, not the revoked one");
        let request = CreateTenantRequest {
            name: "New".into(),
            request_id: REQUEST_ID.into(),
            ..CreateTenantRequest::default()
        };
        let tenant =
            platform_admin.tenants().create_tenant(request).await.expect("a tenant").into_inner();
        let tenant = tenant.tenant.expect("the tenant").id;
        created_ids.push([
            user_id.clone(),
            role_id.clone(),
            service_account_id.clone(),
            tenant.clone(),
        ]);

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
        platform_admin.tenants().delete_tenant(request).await.expect("deleted");
        assert_eq!(record_count(&app).await, 0, "records remain");
    }
    for (first, second) in created_ids[0].iter().zip(&created_ids[1]) {
        assert_ne!(first, second);
    }
}

/// N04: the deletion of a user deletes the records of the requests that this user sent.
#[tokio::test]
async fn records_are_deleted_with_their_caller() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["user:create"]).await;
    create_user(&ada, user_request("bob@acme.test")).await;
    assert_eq!(record_count(&app).await, 1);
    let request = DeleteUserRequest { user_id: ada.user_id, ..DeleteUserRequest::default() };
    acme.users().delete_user(request).await.expect("deleted");
    assert_eq!(record_count(&app).await, 0);
}

/// N04: a request with another password, with another hash, or without a password is another
/// request.
#[tokio::test]
async fn a_request_id_cannot_be_reused_with_a_different_password() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let user_with = |credential| CreateUserRequest {
        credential: Some(credential),
        ..user_request("ada@acme.test")
    };
    let user_with_password = |text: &str| user_with(Credential::Password(text.into()));
    let hash = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".to_owned();
    create_user(&acme, user_with_password(PASSWORD)).await;
    create_user(&acme, user_with_password(PASSWORD)).await;
    for other_request in [
        user_with_password("another horse battery staple"),
        user_with(Credential::PasswordHash(hash)),
        user_request("ada@acme.test"),
    ] {
        let reply = acme.users().create_user(other_request).await;
        assert_refused(reply, Code::InvalidArgument, "REQUEST_ID_REUSED");
    }

    let register_request = |password: &str| RegisterRequest {
        email: "ada@new.test".into(),
        password: password.into(),
        organization_name: "New".into(),
        request_id: REQUEST_ID.into(),
        ..RegisterRequest::default()
    };
    for _ in 0..2 {
        app.anonymous().auth().register(register_request(PASSWORD)).await.expect("registered");
    }
    let reply =
        app.anonymous().auth().register(register_request("another horse battery staple")).await;
    assert_refused(reply, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

/// N04: the same caller cannot use the id for another request.
#[tokio::test]
async fn two_callers_can_create_api_keys_with_the_same_request_id() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["api_key:create"]).await;
    let account = acme.create_service_account("billing", &[]).await;
    let request = || CreateApiKeyRequest {
        service_account_id: account.clone(),
        request_id: REQUEST_ID.into(),
        ..CreateApiKeyRequest::default()
    };
    let mut keys = Vec::new();
    for client in [&acme, &ada] {
        let reply = client.service_accounts().create_api_key(request()).await;
        keys.push(reply.expect("a key").into_inner().api_key.expect("the key").id);
    }
    assert_ne!(keys[0], keys[1]);
    let other_request = CreateApiKeyRequest { name: "other".into(), ..request() };
    let reply = acme.service_accounts().create_api_key(other_request).await;
    assert_refused(reply, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

/// N04: at startup, a server deletes the expired records.
#[tokio::test]
async fn a_record_expires_after_a_day() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    create_user(&acme, user_request("ada@acme.test")).await;
    let make_older = "update idempotency_records set created_at = created_at - interval '24 hours'";
    sqlx::query(make_older)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the record is older");
    // An expired record is ignored, and the new record replaces the expired record.
    let bob = create_user(&acme, user_request("bob@acme.test")).await;
    assert_eq!(create_user(&acme, user_request("bob@acme.test")).await, bob);
    assert_eq!(record_count(&app).await, 1);

    // At startup, a server deletes the expired records, in batches of 1000.
    let insert_expired = "insert into idempotency_records
            (tenant_id, actor_id, method, request_id, fingerprint, response, created_at)
        select tenant_id, gen_random_uuid(), '', n::text, '', '', now() - interval '25 hours'
        from tenants, generate_series(1, 2500) n";
    sqlx::query(insert_expired)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the records are inserted");
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    wait_until(10, || async { record_count(&app).await == 1 }).await;
    wait_until(10, || async {
        second_replica.metric("tenantry_trimmed_rows_total{table=\"idempotency_records\"}").await
            == Some(2500.0)
    })
    .await;
    assert_eq!(create_user(&acme, user_request("bob@acme.test")).await, bob);
}

/// N21: the lock of a request id can't be the lock of a worker, whatever request id a client
/// chooses. The key of a request id's lock has two numbers (`objsubid` 2). The key of a worker's
/// lock has one number.
#[tokio::test]
async fn the_lock_of_a_request_id_never_conflicts_with_the_lock_of_a_worker() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    let begin = "begin; select from tenants where slug = 'acme' for no key update;";
    sqlx::raw_sql(begin).execute(&mut owner_connection).await.expect("locked");
    let request = CreateRoleRequest {
        name: "ops".into(),
        level: RoleLevel::Member.into(),
        request_id: REQUEST_ID.into(),
        ..CreateRoleRequest::default()
    };
    let call = tokio::spawn(async move { acme.roles().create_role(request).await });
    app.wait_until_lock_wait().await;
    let locks = "select l.objsubid from pg_locks l join pg_stat_activity a using (pid)
        where l.locktype = 'advisory' and a.wait_event_type = 'Lock'
          and a.datname = current_database()";
    let locks: Vec<i16> =
        sqlx::query_scalar(locks).fetch_all(&mut owner_connection).await.expect("the locks");
    assert_eq!(locks, [2]);
    sqlx::raw_sql("commit").execute(&mut owner_connection).await.expect("unlocked");
    call.await.expect("no panic").expect("the role is created");
}
