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

use super::by_secret;
use crate::harness::{Client, TestApp, refused, until};

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
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let request = CreateApiKeyRequest { name: "first".into(), ..create_request(&account) };
    let made = create(&acme, request).await.expect("made").into_inner();
    let listed = list(&acme, &account).await;
    let key = made.api_key.expect("a key");
    assert_eq!(listed, std::slice::from_ref(&key));
    assert_eq!((key.name.as_str(), key.state()), ("first", ApiKeyState::Active));
    assert_eq!(key.last_use_time, None);
    let lives =
        key.expire_time.expect("an end").seconds - key.create_time.expect("a start").seconds;
    assert!((364..=365).contains(&(lives / (24 * 60 * 60))), "{lives}");
    let random = made.secret.strip_prefix("tenantry_").expect("the prefix");
    assert_eq!(random.len(), 70);
    for row in app.rows_of(&acme.tenant_id).await {
        assert!(!format!("{row:?}").contains(random), "{row:?}");
    }

    app.anonymous().exchange(&made.secret).await;
    let used = list(&acme, &account).await;
    assert!(used[0].last_use_time.is_some());
    assert_eq!(app.audited(&acme.tenant_id, "api_key_created").await, 1);
}

#[tokio::test]
async fn an_account_may_have_two_keys_of_each_kind() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let first = acme.create_api_key(&account).await.api_key.expect("a key");
    let second = acme.create_api_key(&account).await;
    let third = create(&acme, create_request(&account)).await;
    refused(third, Code::FailedPrecondition, "TOO_MANY_API_KEYS");
    let named = Credential::CertificateName("billing.internal".into());
    let other_kind = CreateApiKeyRequest { credential: Some(named), ..create_request(&account) };
    create(&acme, other_kind).await.expect("of another kind");

    revoke(&acme, &first).await;
    acme.create_api_key(&account).await;
    app.anonymous().exchange(&second.secret).await;
    let states: Vec<_> = list(&acme, &account).await.iter().map(ApiKey::state).collect();
    assert_eq!(states[0], ApiKeyState::Revoked);
    assert_eq!(states[1..], [ApiKeyState::Active; 3]);
}

/// Concurrent requests cannot exceed the limit of two keys.
#[tokio::test]
async fn concurrent_requests_create_at_most_two_keys() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let tried = (0..10).map(|_| create(&acme, create_request(&account)));
    let made = futures::future::join_all(tried).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
    assert_eq!(list(&acme, &account).await.len(), 2);
}

#[tokio::test]
async fn a_retry_returns_the_same_key_with_a_new_secret() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let request = CreateApiKeyRequest { request_id: "once".into(), ..create_request(&account) };
    let first = create(&acme, request.clone()).await.expect("made").into_inner();
    let again = create(&acme, request.clone()).await.expect("again").into_inner();
    assert_eq!(again.api_key, first.api_key);
    assert_ne!(again.secret, first.secret);
    let lost = app.anonymous().auth().exchange_api_key(by_secret(&first.secret)).await;
    refused(lost, Code::Unauthenticated, "INVALID_CREDENTIALS");
    app.anonymous().exchange(&again.secret).await;

    // Once the secret was used, a retry does not replace it.
    let late = create(&acme, request.clone()).await.expect("late").into_inner();
    assert_eq!(late.secret, "");
    app.anonymous().exchange(&again.secret).await;
    let other = CreateApiKeyRequest { name: "other".into(), ..request };
    refused(create(&acme, other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

/// The holder of a key acts with the account's roles.
#[tokio::test]
async fn nobody_creates_a_key_for_an_account_that_holds_more() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["api_key:create", "invoice:send"]).await;
    let within = acme.create_service_account("within", &["invoice:send"]).await;
    create(&ada, create_request(&within))
        .await
        .expect("an account that holds no more than the creator");
    let beyond = acme.create_service_account("beyond", &["invoice:delete"]).await;
    let refusal = create(&ada, create_request(&beyond)).await;
    refused(refusal, Code::PermissionDenied, "GRANT_NOT_HELD");
    let above = acme.create_service_account("above", &[]).await;
    acme.assign(&above, &acme.system_role("manager").await).await;
    refused(create(&ada, create_request(&above)).await, Code::PermissionDenied, "LEVEL_TOO_HIGH");
    // An account cannot create a key for itself, because then a stolen key could outlive its
    // expiry.
    let key = acme.create_api_key(&beyond).await;
    let itself = app.anonymous().exchange(&key.secret).await;
    let more = create(&itself, create_request(&beyond)).await;
    refused(more, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_eq!(list(&acme, &beyond).await.len(), 1);
}

#[tokio::test]
async fn an_account_may_revoke_only_its_own_keys() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let own = acme.create_service_account("own", &[]).await;
    let other = acme.create_service_account("other", &[]).await;
    let (own_key, other_key) = (acme.create_api_key(&own).await, acme.create_api_key(&other).await);
    let itself = app.anonymous().exchange(&own_key.secret).await;
    let other_id = other_key.api_key.expect("a key").id;
    let request = RevokeApiKeyRequest { api_key_id: other_id };
    let refusal = itself.service_accounts().revoke_api_key(request).await;
    refused(refusal, Code::NotFound, "NOT_FOUND");
    let listed = list(&itself, &own).await;
    revoke(&itself, &listed[0]).await;
    let ended = itself.auth().who_am_i(WhoAmIRequest {}).await;
    refused(ended, Code::Unauthenticated, "TOKEN_INVALID");
    app.anonymous().exchange(&other_key.secret).await;
}

/// How an API key becomes invalid.
#[derive(Clone, Copy, Debug)]
enum End {
    Revoked,
    Deleted,
}

/// The tokens of a key become invalid with the key: at once on the same replica, and within a
/// second on other replicas.
#[tokio::test]
async fn tokens_end_with_their_key() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let acme = app.tenant("acme").await;
    for end in [End::Revoked, End::Deleted] {
        let account = acme.create_service_account(&format!("{end:?}"), &[]).await;
        let key = acme.create_api_key(&account).await;
        let here = app.anonymous().exchange(&key.secret).await;
        let replica_client = here.on(&second_replica.channel);
        for client in [&here, &replica_client] {
            client.auth().who_am_i(WhoAmIRequest {}).await.expect("active");
        }
        match end {
            End::Revoked => revoke(&acme, &key.api_key.clone().expect("a key")).await,
            End::Deleted => {
                let service_account_id = account.clone();
                let request =
                    DeleteServiceAccountRequest { service_account_id, ..Default::default() };
                acme.service_accounts().delete_service_account(request).await.expect("deleted");
            }
        }
        let ended = here.auth().who_am_i(WhoAmIRequest {}).await;
        refused(ended, Code::Unauthenticated, "TOKEN_INVALID");
        until(1, || async { replica_client.auth().who_am_i(WhoAmIRequest {}).await.is_err() })
            .await;
        let again = app.anonymous().auth().exchange_api_key(by_secret(&key.secret)).await;
        refused(again, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn a_key_and_its_tokens_end_at_the_expiry_of_the_key() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let at = |seconds| Some(clock::timestamp(clock::now() + time::Duration::seconds(seconds)));
    for past in [at(0), at(-60), Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })] {
        let request = CreateApiKeyRequest { expire_time: past, ..create_request(&account) };
        refused(create(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let request = CreateApiKeyRequest { expire_time: at(120), ..create_request(&account) };
    let key = create(&acme, request).await.expect("a key").into_inner();
    let reply = app.anonymous().auth().exchange_api_key(by_secret(&key.secret)).await;
    let reply = reply.expect("a token").into_inner();
    let end = key.api_key.clone().expect("the key").expire_time;
    assert_eq!(reply.access_expire_time, end);

    let expire_keys = "update api_keys set expires_at = now() - interval '1 second'";
    sqlx::query(expire_keys).execute(&mut app.owner().await).await.expect("shifted");
    let late = app.anonymous().auth().exchange_api_key(by_secret(&key.secret)).await;
    refused(late, Code::Unauthenticated, "INVALID_CREDENTIALS");
    assert_eq!(list(&acme, &account).await[0].state(), ApiKeyState::Expired);
    // N06: revoking an expired key changes nothing and records no event.
    revoke(&acme, &key.api_key.clone().expect("the key")).await;
    assert_eq!(list(&acme, &account).await[0].state(), ApiKeyState::Expired);
    assert_eq!(app.audited(&acme.tenant_id, "api_key_revoked").await, 0);
    // An expired key does not count towards the limit, and is deleted after 90 days.
    acme.create_api_key(&account).await;
    acme.create_api_key(&account).await;
    let old = "update api_keys set expires_at = now() - interval '91 days'";
    sqlx::query(old).execute(&mut app.owner().await).await.expect("shifted");
    acme.create_api_key(&account).await;
    assert_eq!(list(&acme, &account).await.len(), 1);
}

#[tokio::test]
async fn invalid_public_keys_and_certificate_names_are_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("billing", &[]).await;
    let weak = include_str!("../commands/rsa1024.pem");
    for bad in [
        Credential::PublicKey("no key".into()),
        Credential::PublicKey(weak.into()),
        Credential::CertificateName("*.internal".into()),
        Credential::CertificateName("two names".into()),
    ] {
        let request = CreateApiKeyRequest { credential: Some(bad), ..create_request(&account) };
        refused(create(&acme, request).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
    assert!(list(&acme, &account).await.is_empty());
}
