//! API keys: creation, the secret, the limit of two per kind, expiry and revocation.

use tenantry::{
    clock,
    proto::v1::{
        ApiKey, ApiKeyState, CreateApiKeyRequest, CreateApiKeyResponse,
        DeleteServiceAccountRequest, ListApiKeysRequest, RevokeApiKeyRequest, WhoAmIRequest,
        create_api_key_request::Credential,
    },
};
use tonic::{Code, Response, Status};

use super::secret_request;
use crate::harness::{Client, TestApp, assert_refused, wait_until};

fn create_request(account: &str) -> CreateApiKeyRequest {
    CreateApiKeyRequest { service_account_id: account.into(), ..CreateApiKeyRequest::default() }
}

async fn create(
    client: &Client,
    request: CreateApiKeyRequest,
) -> Result<Response<CreateApiKeyResponse>, Status> {
    client.service_accounts().create_api_key(request).await
}

async fn list(client: &Client, account: &str) -> Vec<ApiKey> {
    let request = ListApiKeysRequest { service_account_id: account.into(), ..Default::default() };
    let reply = client.service_accounts().list_api_keys(request).await.expect("keys");
    reply.into_inner().api_keys
}

async fn revoke(client: &Client, key: &ApiKey) {
    let request = RevokeApiKeyRequest { api_key_id: key.id.clone() };
    client.service_accounts().revoke_api_key(request).await.expect("revoked");
}

#[tokio::test]
async fn a_secret_is_returned_once_and_stored_as_a_hash() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let request = CreateApiKeyRequest { name: "first".into(), ..create_request(&account) };
    let response = create(&acme, request).await.expect("created").into_inner();
    let keys = list(&acme, &account).await;
    let key = response.api_key.expect("a key");
    assert_eq!(keys, std::slice::from_ref(&key));
    assert_eq!((key.name.as_str(), key.state()), ("first", ApiKeyState::Active));
    assert_eq!(key.last_use_time, None);
    let lifetime = key.expire_time.expect("an expiry").seconds
        - key.create_time.expect("a creation time").seconds;
    assert!((364..=365).contains(&(lifetime / (24 * 60 * 60))), "{lifetime}");
    let random_part = response.secret.strip_prefix("tenantry_").expect("the prefix");
    // 52 bytes in Base64: the id of the tenant (16), random bytes (32) and a checksum (4).
    assert_eq!(random_part.len(), 70);
    for row in app.rows_of(&acme.tenant_id).await {
        assert!(!format!("{row:?}").contains(random_part), "{row:?}");
    }

    app.anonymous().exchange(&response.secret).await;
    let used_keys = list(&acme, &account).await;
    assert!(used_keys[0].last_use_time.is_some());
    assert_eq!(app.audit_event_count(&acme.tenant_id, "api_key_created").await, 1);
}

#[tokio::test]
async fn an_account_may_have_two_keys_of_each_kind() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let first_key = acme.create_api_key(&account).await.api_key.expect("a key");
    let second_key = acme.create_api_key(&account).await;
    let result = create(&acme, create_request(&account)).await;
    assert_refused(result, Code::FailedPrecondition, "TOO_MANY_API_KEYS");
    let certificate_name = Credential::CertificateName("billing.internal".into());
    let request =
        CreateApiKeyRequest { credential: Some(certificate_name), ..create_request(&account) };
    create(&acme, request).await.expect("a key of another kind");

    revoke(&acme, &first_key).await;
    acme.create_api_key(&account).await;
    app.anonymous().exchange(&second_key.secret).await;
    let states: Vec<_> = list(&acme, &account).await.iter().map(ApiKey::state).collect();
    assert_eq!(states[0], ApiKeyState::Revoked);
    assert_eq!(states[1..], [ApiKeyState::Active; 3]);
}

#[tokio::test]
async fn concurrent_requests_create_at_most_two_keys() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let calls = (0..10).map(|_| create(&acme, create_request(&account)));
    let results = futures::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(list(&acme, &account).await.len(), 2);
}

#[tokio::test]
async fn a_retry_returns_the_same_key_with_a_new_secret() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let request = CreateApiKeyRequest { request_id: "once".into(), ..create_request(&account) };
    let first_response = create(&acme, request.clone()).await.expect("created").into_inner();
    let second_response = create(&acme, request.clone()).await.expect("the same key").into_inner();
    assert_eq!(second_response.api_key, first_response.api_key);
    assert_ne!(second_response.secret, first_response.secret);
    let result =
        app.anonymous().auth().exchange_api_key(secret_request(&first_response.secret)).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    app.anonymous().exchange(&second_response.secret).await;

    // After a secret was used, a retry does not replace the secret.
    let third_response = create(&acme, request.clone()).await.expect("the same key").into_inner();
    assert_eq!(third_response.secret, "");
    app.anonymous().exchange(&second_response.secret).await;
    let changed_request = CreateApiKeyRequest { name: "other".into(), ..request };
    assert_refused(
        create(&acme, changed_request).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
}

/// The holder of a key acts with the account's roles, so the creator must hold these rights.
#[tokio::test]
async fn nobody_creates_a_key_for_an_account_with_more_rights() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["api_key:create", "invoice:send"]).await;
    let weaker_account = acme.create_service_account("within", &["invoice:send"]).await;
    create(&ada, create_request(&weaker_account))
        .await
        .expect("the account has only rights that the creator holds");
    let stronger_account = acme.create_service_account("beyond", &["invoice:delete"]).await;
    let result = create(&ada, create_request(&stronger_account)).await;
    assert_refused(result, Code::PermissionDenied, "GRANT_NOT_HELD");
    let higher_account = acme.create_service_account("above", &[]).await;
    acme.assign(&higher_account, &acme.system_role("manager").await).await;
    assert_refused(
        create(&ada, create_request(&higher_account)).await,
        Code::PermissionDenied,
        "LEVEL_TOO_HIGH",
    );
    // An account cannot create a key for itself, because then a stolen key could outlive its
    // expiry.
    let key = acme.create_api_key(&stronger_account).await;
    let account_client = app.anonymous().exchange(&key.secret).await;
    let result = create(&account_client, create_request(&stronger_account)).await;
    assert_refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_eq!(list(&acme, &stronger_account).await.len(), 1);
}

#[tokio::test]
async fn an_account_may_revoke_only_its_own_keys() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("own", &[]).await;
    let other_account = acme.create_service_account("other", &[]).await;
    let (own_key, other_key) =
        (acme.create_api_key(&account).await, acme.create_api_key(&other_account).await);
    let account_client = app.anonymous().exchange(&own_key.secret).await;
    let other_id = other_key.api_key.expect("a key").id;
    let request = RevokeApiKeyRequest { api_key_id: other_id };
    let result = account_client.service_accounts().revoke_api_key(request).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
    let keys = list(&account_client, &account).await;
    revoke(&account_client, &keys[0]).await;
    let result = account_client.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    app.anonymous().exchange(&other_key.secret).await;
}

/// How an API key becomes invalid.
#[derive(Clone, Copy, Debug)]
enum KeyEnd {
    Revoked,
    AccountDeleted,
}

/// The tokens of a key become invalid with the key: immediately on the same replica, and within a
/// second on other replicas.
#[tokio::test]
async fn tokens_become_invalid_with_their_key() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    for end in [KeyEnd::Revoked, KeyEnd::AccountDeleted] {
        let account = acme.create_service_account(&format!("{end:?}"), &[]).await;
        let key = acme.create_api_key(&account).await;
        let client = app.anonymous().exchange(&key.secret).await;
        let replica_client = client.on_server(&second_replica.channel);
        for caller in [&client, &replica_client] {
            caller.auth().who_am_i(WhoAmIRequest {}).await.expect("active");
        }
        match end {
            KeyEnd::Revoked => revoke(&acme, &key.api_key.clone().expect("a key")).await,
            KeyEnd::AccountDeleted => {
                let service_account_id = account.clone();
                let request =
                    DeleteServiceAccountRequest { service_account_id, ..Default::default() };
                acme.service_accounts().delete_service_account(request).await.expect("deleted");
            }
        }
        let result = client.auth().who_am_i(WhoAmIRequest {}).await;
        assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
        wait_until(1, || async { replica_client.auth().who_am_i(WhoAmIRequest {}).await.is_err() })
            .await;
        let result = app.anonymous().auth().exchange_api_key(secret_request(&key.secret)).await;
        assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn a_key_and_its_tokens_expire_together() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let seconds_from_now =
        |seconds| Some(clock::timestamp(clock::now() + time::Duration::seconds(seconds)));
    for invalid_time in [
        seconds_from_now(0),
        seconds_from_now(-60),
        Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
    ] {
        let request = CreateApiKeyRequest { expire_time: invalid_time, ..create_request(&account) };
        assert_refused(create(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let request =
        CreateApiKeyRequest { expire_time: seconds_from_now(120), ..create_request(&account) };
    let key = create(&acme, request).await.expect("a key").into_inner();
    let reply = app.anonymous().auth().exchange_api_key(secret_request(&key.secret)).await;
    let reply = reply.expect("a token").into_inner();
    let expire_time = key.api_key.clone().expect("the key").expire_time;
    assert_eq!(reply.access_expire_time, expire_time);

    let expire_keys = "update api_keys set expires_at = now() - interval '1 second'";
    sqlx::query(expire_keys)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the expiry is changed");
    let result = app.anonymous().auth().exchange_api_key(secret_request(&key.secret)).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    assert_eq!(list(&acme, &account).await[0].state(), ApiKeyState::Expired);
    // Revoking an expired key changes nothing and records no event.
    revoke(&acme, &key.api_key.clone().expect("the key")).await;
    assert_eq!(list(&acme, &account).await[0].state(), ApiKeyState::Expired);
    assert_eq!(app.audit_event_count(&acme.tenant_id, "api_key_revoked").await, 0);
    // An expired key does not count towards the limit, and is deleted after 90 days.
    acme.create_api_key(&account).await;
    acme.create_api_key(&account).await;
    let age_keys = "update api_keys set expires_at = now() - interval '91 days'";
    sqlx::query(age_keys)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the expiry is changed");
    acme.create_api_key(&account).await;
    assert_eq!(list(&acme, &account).await.len(), 1);
}

#[tokio::test]
async fn invalid_public_keys_and_certificate_names_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let weak_key = include_str!("../commands/rsa1024.pem");
    for credential in [
        Credential::PublicKey("no key".into()),
        Credential::PublicKey(weak_key.into()),
        Credential::CertificateName("*.internal".into()),
        Credential::CertificateName("two names".into()),
    ] {
        let request =
            CreateApiKeyRequest { credential: Some(credential), ..create_request(&account) };
        assert_refused(create(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
    assert!(list(&acme, &account).await.is_empty());
}
